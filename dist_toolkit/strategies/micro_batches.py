"""Split a batch of nested tensors into micro-batches, and weigh them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch

from dist_toolkit.errors import ConfigError
from dist_toolkit.process_group import Group
from dist_toolkit.strategies.request import BatchWeight

Weigh = Callable[[Any], "float | torch.Tensor"]


def micro_batches(
    batch: Any, count: int | None, weigh: Weigh | None, group: Group, batch_weight: BatchWeight, fill: bool = False
) -> list[tuple[Any, float | torch.Tensor]]:
    """Pairs (micro-batch, weight of its loss) for one optimizer step; the same number of them on every rank.

    Weights are such that the average over ranks of the sum of weighted mean losses is the mean over the global batch.
    One batch without `weigh`: by samples and the loader's `batch_weight`. Else by one reduction of what `weigh` counts,
    or of the samples of a list: collective. `fill`: see `split_batch`.

    Raises:
        ConfigError: `count` is not positive or more than there are samples, or the batch holds no tensor.
    """
    if count is None:
        if not isinstance(batch, (list, tuple)) or not batch:
            raise ConfigError(
                "pass accumulate(batch, count) to split a batch, or accumulate([batch, ...]) with micro-batches"
            )
        real = batch_weight.real(len(batch))
        return list(zip(batch, _weights(batch, real, weigh or _size, group), strict=True))
    pieces = split_batch(batch, count, fill)
    if weigh is None:
        return [(piece, share * batch_weight.value) for piece, share in pieces]
    real = [share > 0 and batch_weight.value > 0 for _, share in pieces]
    batch = [piece for piece, _ in pieces]
    return list(zip(batch, _weights(batch, real, weigh, group), strict=True))


def _weights(pieces: Sequence[Any], real: Sequence[bool], weigh: Weigh, group: Group) -> list[float | torch.Tensor]:
    """n_i * ranks / (sum over all ranks of n), n = 0 for copies; without waiting for the device."""
    found = [torch.as_tensor(weigh(piece), dtype=torch.float32, device=group.device) for piece in pieces]
    counts = torch.stack([value.reshape(()) for value in found]) * torch.tensor(real, device=group.device)
    total = group.all_reduce(counts.sum())
    return list((counts * group.world.world_size / total.clamp(min=1e-12)).unbind())


def split_batch(batch: Any, count: int, fill: bool = False) -> list[tuple[Any, float]]:
    """`count` pairs (micro-batch, its share of the samples), as even as can be, shares summing to 1.

    Tensors are split along dimension 0, and lists and tuples of as many other things (names) as there are samples.

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
    pieces = [(_slice(batch, a, b, size), (b - a) / size) for a, b in pairwise(edges)]
    return pieces + [(_slice(batch, 0, 1, size), 0.0)] * (count - filled)


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


def _slice(value: Any, start: int, stop: int, size: int) -> Any:
    if isinstance(value, torch.Tensor):
        return value[start:stop] if value.ndim else value
    if isinstance(value, Mapping):
        items = {key: _slice(item, start, stop, size) for key, item in value.items()}
        return items if type(value) is dict else type(value)(items)  # type: ignore[call-arg]
    if isinstance(value, (list, tuple)) and len(value) == size and not any(True for _ in _tensors(value)):
        return value[start:stop]
    if isinstance(value, tuple):
        parts = [_slice(item, start, stop, size) for item in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    if isinstance(value, list):
        return [_slice(item, start, stop, size) for item in value]
    return value
