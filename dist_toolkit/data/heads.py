"""Whether all readers of a stream read the same items: the digests of its first few are compared.

Where items are shared out, each reader keeps only its share of what it reads. A data set that divides itself by rank as
well would so lose most of its samples, and nothing else would show it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np
import torch

from dist_toolkit.errors import ConfigError
from dist_toolkit.process_group import Group

_LOG = logging.getLogger("dist_toolkit")

ITEMS = 16
"""Items at the start of a stream that are looked at."""
_ELEMENTS = 4096
"""Elements of a tensor that are looked at."""


class Head:
    """A digest of the first items of a stream, taken while they go by."""

    def __init__(self, items: int) -> None:
        self._left = min(items, ITEMS)
        self._hash = hashlib.blake2b(digest_size=8)

    def see(self, item: Any) -> None:
        """Take the next item of the stream; from `items` on, nothing happens."""
        if self._left:
            self._left -= 1
            with suppress(Exception):  # of objects of the user's: what cannot be told of an item is left out
                _add(self._hash, item, 0)

    def digest(self) -> str:
        """What stands for the items seen."""
        return self._hash.hexdigest()


class HeadCheck:
    """The comparison of a stream's heads over the readers of a rank, and over ranks.

    Args:
        strict: raise; otherwise (the user says that the readers read the same) log a warning.
    """

    def __init__(self, name: str, group: Group | None, strict: bool) -> None:
        self._name, self._group, self._strict = name, group, strict
        self._agreed = self._warned = False

    @property
    def due(self) -> bool:
        """Whether the ranks have not compared yet."""
        return not self._agreed

    def ranks(self, mine: str | None, failure: Exception | None) -> None:
        """Compare over ranks. Collective.

        Args:
            mine: of this rank's first reader.
            failure: what kept it from reading.

        Raises:
            ConfigError: on every rank, where two read different items, or another rank could not read.
            Exception: `failure`.
        """
        words = None if failure is None else f"{type(failure).__name__}: {failure}"
        answers = [[words, mine]] if self._group is None else self._group.all_gather_json([words, mine])
        if failure is not None:
            raise failure
        for rank, (theirs, _) in enumerate(answers):
            if theirs is not None:
                raise ConfigError(f"rank {rank} cannot read {self._name}: {theirs}")
        self._agreed = True
        found = [head for _, head in answers]
        others = [rank for rank, head in enumerate(found) if head != found[0]]
        if others:
            self._object(
                f"rank 0 and rank {others[0]} read",
                "if it divides itself by rank and worker, pass sharded=True, or take the division out",
            )

    def readers(self, one: str, other: str) -> None:
        """Compare two readers of this rank. Local; raises ConfigError where they read different items."""
        if one != other:
            self._object(
                "the workers of a rank read",
                "if worker_init_fn divides it by worker, take that out, as it is not needed",
            )

    def _object(self, who: str, advice: str) -> None:
        words = (
            f"{who} different items from {self._name}, and each keeps only its share of them, so samples are lost: "
            f"{advice}; if only random numbers of its own differ, sharded=False makes this a warning"
        )
        if self._strict:
            raise ConfigError(words)
        if not self._warned:
            self._warned = True
            _LOG.warning("%s", words)


def _add(state: Any, item: Any, depth: int) -> None:
    """Add what can be told of an item: tensors, arrays, numbers and text, nested; of other objects, the type."""
    state.update(f"{type(item).__qualname__}:".encode())
    if isinstance(item, (str, bytes, bytearray)):
        state.update(item.encode(errors="surrogatepass") if isinstance(item, str) else item)
    elif item is None or isinstance(item, (bool, int, float, complex, np.generic)):
        state.update(repr(item).encode())
    elif isinstance(item, (torch.Tensor, np.ndarray)):
        _add_array(state, item)
    elif depth < 8:
        for part in _parts(item):
            _add(state, part, depth + 1)
    state.update(b";")


def _parts(item: Any) -> list[Any]:
    if isinstance(item, Mapping):
        return [part for pair in item.items() for part in pair]
    if isinstance(item, (list, tuple)):
        return list(item)
    if dataclasses.is_dataclass(item) and not isinstance(item, type):
        return [getattr(item, field.name, None) for field in dataclasses.fields(item)]
    return []


def _add_array(state: Any, item: torch.Tensor | np.ndarray[Any, Any]) -> None:
    state.update(f"{item.dtype} {tuple(item.shape)}".encode())
    if isinstance(item, np.ndarray):
        if not item.dtype.hasobject:
            state.update(item.reshape(-1)[:_ELEMENTS].tobytes())
    elif item.layout is torch.strided and not item.is_quantized and item.device.type != "meta":
        first = item.detach().reshape(-1)[:_ELEMENTS].resolve_conj().resolve_neg().cpu().contiguous()
        state.update(first.view(torch.uint8).numpy().tobytes())
