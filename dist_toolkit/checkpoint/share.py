"""What a rank holds of a tensor: all of it, or the box that a DTensor places here."""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

import torch

_PLAIN = (torch.Tensor, torch.nn.Parameter)  # with thousands of tensors, to find that out takes long


class Share(NamedTuple):
    """A rank's part of a tensor of `shape`: `data` is the box at `offsets`, in the memory of the tensor itself."""

    data: torch.Tensor
    shape: tuple[int, ...]
    offsets: tuple[int, ...]

    @property
    def sizes(self) -> tuple[int, ...]:
        """How long the box is in each dimension."""
        return tuple(self.data.shape)


class Shares:
    """Finds shares; the place of tensors that are alike is worked out once."""

    def __init__(self) -> None:
        self._known: dict[Any, tuple[tuple[int, ...], tuple[int, ...]]] = {}
        # a DTensor can only come from a program that has imported the module, which takes half a second
        self._module: Any = sys.modules.get("torch.distributed.tensor")

    def all_of(self, tensor: torch.Tensor) -> list[Share]:
        """The shares of this rank: several of a tensor that gives `parts`, as ZeRO's ranges do; one of any other.

        Raises:
            ValueError: see `of`.
        """
        if type(tensor) in _PLAIN:
            return [_whole(tensor)]
        parts = getattr(tensor, "parts", None)
        if parts is None:
            return [self.of(tensor)]
        return [Share(data.detach(), tuple(tensor.shape), offsets) for offsets, data in parts()]

    def of(self, tensor: torch.Tensor) -> Share:
        """The share of this rank. Not collective.

        Raises:
            ValueError: a DTensor that waits for a reduction, or whose local part is not as long as its placement says.
        """
        if self._module is None or not isinstance(tensor, self._module.DTensor):
            return _whole(tensor)
        shape = tuple(tensor.shape)
        local = tensor._local_tensor  # to_local does the same without gradients, and takes ten times as long
        key = (shape, tensor.device_mesh, tensor.placements)
        box = self._known.get(key)
        if box is None:
            box = self._known[key] = _box(shape, tensor.device_mesh, tensor.placements)
        sizes, offsets = box
        if tuple(local.shape) != sizes:
            raise ValueError(
                f"a DTensor of shape {list(shape)}, {tensor.placements}, holds {list(local.shape)} here, "
                f"not {list(sizes)}"
            )
        return Share(local, shape, offsets)


def _whole(tensor: torch.Tensor) -> Share:
    shape = tuple(tensor.shape)
    return Share(tensor.detach(), shape, (0,) * len(shape))


def _box(shape: tuple[int, ...], mesh: Any, placements: tuple[Any, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(sizes, offsets) of this rank's box."""
    if any(placement.is_partial() for placement in placements):
        raise ValueError(f"a DTensor with the placements {placements} is not yet reduced; call full_tensor() first")
    cut = [(number, placement) for number, placement in enumerate(placements) if not placement.is_replicate()]
    plain = all(type(placement).__name__ == "Shard" for _, placement in cut)
    if not plain or len({placement.dim for _, placement in cut}) < len(cut):
        from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

        sizes, offsets = compute_local_shape_and_global_offset(shape, mesh, placements)
        return tuple(sizes), tuple(offsets)
    # one dimension of the mesh cuts one of the tensor; torch's function would fill a tensor as long as that dimension
    where = mesh.get_coordinate()
    box = [(length, 0) for length in shape]
    for number, placement in cut:
        box[placement.dim] = even_part(shape[placement.dim], mesh.size(number), where[number])
    return tuple(size for size, _ in box), tuple(offset for _, offset in box)


def even_part(length: int, parts: int, number: int) -> tuple[int, int]:
    """(size, offset) of one part, as torch.chunk cuts: all as long as the first, the last ones shorter or empty."""
    each = -(-length // parts)
    offset = min(number * each, length)
    return min(each, length - offset), offset
