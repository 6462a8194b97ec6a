"""A range of a tensor's elements in row-major order, as ZeRO shares tensors out, and the boxes that make it up."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any

import torch

from dist_toolkit.process_group import Group

Place = tuple[tuple[int, ...], tuple[int, ...]]
"""Offsets and sizes of a box."""


def boxes(shape: Sequence[int], start: int, count: int) -> list[Place]:
    """The boxes that `count` elements from `start` on make up, in order: at most 2 * dimensions - 1. Pure.

    In two dimensions: what is left of a row, whole rows, and the beginning of a row.
    """
    if count == 0:
        return []
    if not shape:
        return [((), ())]
    row = math.prod(shape[1:])
    first, skipped = divmod(start, row)
    found: list[Place] = []
    if skipped:
        head = min(row - skipped, count)
        found += _in_row(first, boxes(shape[1:], skipped, head))
        first, count = first + 1, count - head
    whole, tail = divmod(count, row)
    if whole:
        found.append(((first, *(0 for _ in shape[1:])), (whole, *shape[1:])))
    return found + _in_row(first + whole, boxes(shape[1:], 0, tail))


class FlatRange(torch.Tensor):
    """A tensor of which this rank holds the elements from `start` on, one-dimensional, in `local`; a view of it.

    Like a DTensor it has the shape of the whole, `to_local` and `full_tensor`; it cannot be computed with.

    Attributes:
        home: the tensor that `local` lies in, with those of other parameters beside it.
    """

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]
    _local_tensor: torch.Tensor
    _start: int
    _group: Group
    home: torch.Tensor

    @staticmethod
    def __new__(
        cls: Any, local: torch.Tensor, start: int, shape: Sequence[int], group: Group, home: torch.Tensor | None = None
    ) -> FlatRange:
        """See the class; `home` is `local` where nothing else is said."""
        made: Any = torch.Tensor._make_wrapper_subclass(cls, tuple(shape), dtype=local.dtype, device=local.device)
        made._local_tensor, made._start, made._group = local, start, group
        made.home = local if home is None else home
        found: FlatRange = made
        return found

    def to_local(self) -> torch.Tensor:
        """This rank's elements, one-dimensional."""
        return self._local_tensor

    def full_tensor(self) -> torch.Tensor:
        """The whole, on the group's device. Collective; exact to the bit."""
        whole = torch.zeros(self.shape.numel(), dtype=self.dtype, device=self._group.device)
        whole.narrow(0, self._start, self._local_tensor.numel()).copy_(self._local_tensor)
        # as integers: a sum of floats would turn -0.0 into 0.0
        integers = {4: torch.int32, 8: torch.int64}.get(whole.element_size(), torch.uint8)
        self._group.all_reduce(whole.view(integers))
        return whole.view(self.shape)

    def parts(self) -> Iterator[tuple[tuple[int, ...], torch.Tensor]]:
        """The boxes of the whole tensor that this rank holds: offsets of each, and its view of `local`."""
        places = boxes(self.shape, self._start, self._local_tensor.numel())
        ends = accumulate((math.prod(sizes) for _, sizes in places), initial=0)
        for (offsets, sizes), begin in zip(places, ends, strict=False):
            yield offsets, self._local_tensor.narrow(0, begin, math.prod(sizes)).view(sizes)

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> FlatRange:
        """`detach` alone."""
        if func is not torch.ops.aten.detach.default:
            raise TypeError(f"{func} on a range of a tensor; call to_local() or full_tensor() first")
        one: FlatRange = args[0]
        return cls(one._local_tensor.detach(), one._start, one.shape, one._group, one.home)


def _in_row(row: int, places: list[Place]) -> list[Place]:
    return [((row, *offsets), (1, *sizes)) for offsets, sizes in places]
