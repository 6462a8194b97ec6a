"""Any object between the ranks of one run: pickled by one, unpickled by others of the same program."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

from dist_toolkit.errors import ConfigError, PeerError
from dist_toolkit.group import Group

_GOOD, _BAD = b"+", b"-"


def gather_objects(group: Group, value: Any) -> list[Any]:
    """Everyone's `value`, by rank. Collective.

    Raises:
        PeerError: a value cannot be pickled, or not unpickled; on every rank.
    """
    with group.watched("rt.gather_objects"):
        answers = group.all_gather_bytes(_packed(lambda: value)[0])
        _refuse("gathering objects", dict(enumerate(answers)), None)
        return _unpacked_everywhere(group, "gathering objects", answers)


def broadcast_object(group: Group, value: Any, src: int = 0) -> Any:
    """The value of rank `src`; other ranks' argument is ignored. Collective.

    Raises:
        ConfigError: no such rank.
        PeerError: the value cannot be pickled, or not unpickled; on every rank.
    """
    if not isinstance(src, int) or not 0 <= src < group.world.world_size:
        raise ConfigError(f"src={src!r} is not a rank; pass 0 to {group.world.world_size - 1}")
    packed, error = _packed(lambda: value) if group.world.rank == src else (b"", None)
    with group.watched(f"rt.broadcast_object(src={int(src)})"):
        answer = group.broadcast_bytes(packed, src)
        _refuse("broadcasting an object", {src: answer}, error)
        return _unpacked_everywhere(group, "broadcasting an object", [answer])[0]


def decide(group: Group, function: Callable[..., Any], *args: Any) -> Any:
    """What `function(*args)` returned on rank 0, the only one that calls it. Collective; the function must not be.

    Raises:
        PeerError: the function failed, or its result cannot be pickled; on every rank.
    """
    name = getattr(function, "__qualname__", type(function).__name__)
    packed, error = _packed(lambda: function(*args)) if group.world.is_main else (b"", None)
    with group.watched("rt.decide"):
        answer = group.broadcast_bytes(packed)
        if error is not None and not isinstance(error, Exception):
            raise error  # Ctrl-C and sys.exit stay what they are on this rank
        _refuse(f"rt.decide({name})", {0: answer}, error)
        return _unpacked_everywhere(group, f"rt.decide({name})", [answer])[0]


def _packed(make: Callable[[], Any]) -> tuple[bytes, BaseException | None]:
    """What `make` returns, as a message; or why not, as a message and as the exception."""
    try:
        return _GOOD + pickle.dumps(make()), None
    except BaseException as error:
        return _BAD + f"{type(error).__name__}: {error}".encode(), error


def _refuse(what: str, answers: dict[int, bytes], cause: BaseException | None) -> None:
    failures = {rank: data[1:].decode() for rank, data in answers.items() if data[:1] != _GOOD}
    if failures:
        raise PeerError(what, failures) from cause


def _unpacked_everywhere(group: Group, what: str, answers: list[bytes]) -> list[Any]:
    values: list[Any] = []
    error: Exception | None = None
    try:
        values = [pickle.loads(data[1:]) for data in answers]
    except Exception as caught:
        error = caught
    group.agree(what, error)
    return values
