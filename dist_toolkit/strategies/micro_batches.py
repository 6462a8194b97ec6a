"""Split a batch of nested tensors into micro-batches. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

import torch

from dist_toolkit.errors import ConfigError


def split_batch(batch: Any, count: int) -> list[tuple[Any, float]]:
    """Pairs (micro-batch, its share of the samples); at most `count`, as even as can be, shares summing to 1.

    Raises:
        ConfigError: `count` is not positive, there is no tensor, or tensors differ in size along dimension 0.
    """
    if count < 1:
        raise ConfigError(f"cannot accumulate over {count} micro-batches; pass at least 1")
    sizes = {tensor.shape[0] for tensor in _tensors(batch) if tensor.ndim}
    if len(sizes) != 1:
        found = "no tensor" if not sizes else f"tensors of {sorted(sizes)} samples"
        raise ConfigError(f"cannot split a batch that holds {found}; it needs tensors with samples along dimension 0")
    size = sizes.pop()
    edges = [size * i // min(count, size) for i in range(min(count, size) + 1)]
    return [(_slice(batch, a, b), (b - a) / size) for a, b in pairwise(edges)]


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)


def _slice(value: Any, start: int, stop: int) -> Any:
    if isinstance(value, torch.Tensor):
        return value[start:stop] if value.ndim else value
    if isinstance(value, Mapping):
        return {key: _slice(item, start, stop) for key, item in value.items()}
    if isinstance(value, tuple):
        items = [_slice(item, start, stop) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
    if isinstance(value, list):
        return [_slice(item, start, stop) for item in value]
    return value
