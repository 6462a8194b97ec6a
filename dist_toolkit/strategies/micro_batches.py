"""Split a batch of nested tensors into micro-batches, and weigh them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch

from dist_toolkit.errors import ConfigError
from dist_toolkit.process_group import Group

Weigh = Callable[[Any], "float | torch.Tensor"]


def micro_batches(
    batch: Any, count: int | None, weigh: Weigh | None, group: Group, batch_weight: float, fill: bool = False
) -> list[tuple[Any, float | torch.Tensor]]:
    """Pairs (micro-batch, weight of its loss) for one optimizer step; the same number of them on every rank.

    Weights are such that the average over ranks of the sum of weighted mean losses is the mean over the global batch.
    With `weigh`, by one reduction of what it counts; without, by samples and the loader's `batch_weight`.
    Collective where `weigh` is given. `fill`: see `split_batch`.

    Raises:
        ConfigError: `count` is not positive or more than there are samples, or the batch holds no tensor.
    """
    if count is None:
        if not isinstance(batch, (list, tuple)) or not batch:
            raise ConfigError(
                "pass accumulate(batch, count) to split a batch, or accumulate([batch, ...]) with micro-batches"
            )
        shares = share_of(batch)
    else:
        pieces = split_batch(batch, count, fill)
        batch, shares = [piece for piece, _ in pieces], [share for _, share in pieces]
    if weigh is None:
        return [(piece, share * batch_weight) for piece, share in zip(batch, shares, strict=True)]
    return list(zip(batch, _weights(batch, shares, weigh, group, batch_weight), strict=True))


def _weights(
    pieces: Sequence[Any], shares: Sequence[float], weigh: Weigh, group: Group, batch_weight: float
) -> list[float | torch.Tensor]:
    """n_i * ranks / (sum over all ranks of n), without waiting for the device."""
    found = [torch.as_tensor(weigh(piece), dtype=torch.float32, device=group.device) for piece in pieces]
    real = torch.tensor([float(share > 0 and batch_weight > 0) for share in shares], device=group.device)
    counts = torch.stack([value.reshape(()) for value in found]) * real
    total = group.all_reduce(counts.sum())
    return list((counts * group.world.world_size / total.clamp(min=1e-12)).unbind())


def share_of(pieces: Sequence[Any]) -> list[float]:
    """Each micro-batch's part of all samples in the window."""
    sizes = [_size(piece) for piece in pieces]
    return [size / sum(sizes) for size in sizes]


def split_batch(batch: Any, count: int, fill: bool = False) -> list[tuple[Any, float]]:
    """`count` pairs (micro-batch, its share of the samples), as even as can be, shares summing to 1.

    Args:
        fill: where there are fewer samples than `count`, repeat the first one with share 0 instead of refusing: the
            last batch of an epoch can be that small, and all ranks must take the same number of micro-batches.

    Raises:
        ConfigError: `count` is not positive or more than the samples, there is no tensor, or tensors differ in size
            along dimension 0.
    """
    if not isinstance(count, int) or count < 1:
        raise ConfigError(f"cannot accumulate over {count} micro-batches; pass at least 1")
    size = _size(batch)
    if count > size and not fill:
        raise ConfigError(f"cannot split {size} samples of this rank into {count} micro-batches; pass at most {size}")
    filled = min(count, size)
    edges = [size * i // filled for i in range(filled + 1)]
    pieces = [(_slice(batch, a, b), (b - a) / size) for a, b in pairwise(edges)]
    return pieces + [(_slice(batch, 0, 1), 0.0)] * (count - filled)


def _size(batch: Any) -> int:
    sizes = {tensor.shape[0] for tensor in _tensors(batch) if tensor.ndim}
    if len(sizes) != 1 or 0 in sizes:
        found = "no tensor" if not sizes else f"tensors of {sorted(sizes)} samples"
        raise ConfigError(f"cannot split a batch that holds {found}; it needs tensors with samples along dimension 0")
    return sizes.pop()


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
