"""Whether the ranks are about to split the same model: else they would wait for each other for ever, or mix weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from torch import nn

from dist_toolkit.errors import ConfigError, PeerError
from dist_toolkit.group import Group
from dist_toolkit.strategies.state import strip_wrappers

T = TypeVar("T")


def describe(module: nn.Module) -> dict[str, str]:
    """Parameters and buffers by name, in order: shape, type, and whether it is trained. No values are read."""
    told = {}
    for name, parameter in module.named_parameters():
        frozen = "" if parameter.requires_grad else ", frozen"
        told[strip_wrappers(name)] = f"{list(parameter.shape)} {_short(parameter.dtype)}{frozen}"
    for name, buffer in module.named_buffers():
        told[strip_wrappers(name)] = f"buffer {list(buffer.shape)} {_short(buffer.dtype)}"
    return told


def check_same(what: str, mine: Mapping[str, Any], group: Group) -> None:
    """Compare a mapping of plain data over the ranks; the order of its keys counts. Collective.

    One digest a rank is sent, and the mappings only where they differ.

    Raises:
        ConfigError: on every rank: the first difference from rank 0, and whose it is.
    """
    digest = hashlib.blake2b(json.dumps(list(mine.items())).encode(), digest_size=16).hexdigest()
    if len(set(group.all_gather_json(digest))) == 1:
        return
    everyone = [dict(items) for items in group.all_gather_json(list(mine.items()))]
    raise ConfigError(f"{what} is not the same on all ranks: {first_difference(everyone)}; make it alike on every rank")


def first_difference(everyone: Sequence[Mapping[str, Any]]) -> str:
    """The first key at which a rank differs from rank 0, and both values; or that the order does."""
    first = everyone[0]
    for rank, other in enumerate(everyone):
        for key in [*first, *other]:
            if key not in other:
                return f"rank {rank} has no {key}, which rank 0 has ({first[key]})"
            if key not in first:
                return f"rank {rank} has {key} ({other[key]}), which rank 0 has not"
            if other[key] != first[key]:
                return f"{key} is {first[key]} on rank 0 and {other[key]} on rank {rank}"
    rank = next(rank for rank, other in enumerate(everyone) if list(other) != list(first))
    moved = next(mine for mine, other in zip(first, everyone[rank], strict=True) if mine != other)
    return f"rank {rank} has another order from {moved} on"


def together(what: str, call: Callable[[], T], group: Group) -> T:
    """The result of a local call, or a failure on every rank. Collective.

    Raises:
        PeerError: it failed on another rank only. Where it failed on this rank, what it raised.
        ConfigError: a rank raised one.
    """
    result: list[T] = []
    failure: Exception | None = None
    try:
        result.append(call())
    except Exception as caught:  # raised again below, when all ranks know
        failure = caught
    refusals = group.all_gather_json(None if failure is None else [isinstance(failure, ConfigError), str(failure)])
    if failure is not None:
        raise failure
    failed = {rank: answer for rank, answer in enumerate(refusals) if answer is not None}
    for rank, (is_refusal, said) in failed.items():
        if is_refusal:
            raise ConfigError(f"{said} (on rank {rank}; not on this one)")
    if failed:
        raise PeerError(what, {rank: said for rank, (_, said) in failed.items()})
    return result[0]


def _short(dtype: Any) -> str:
    return str(dtype).removeprefix("torch.")
