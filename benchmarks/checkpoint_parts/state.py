"""The state that every method saves, and whether it came back. Runs in the ranks."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import torch
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Shard

from .tables import Layout

Tensors = Mapping[str, torch.Tensor]


class State:
    """Matrices of random numbers, split evenly over the ranks by rows.

    Attributes:
        shares: this rank's share of each tensor, with memory of its own.
        whole: the whole of each tensor, the same on every rank; empty where no method wants it.
    """

    def __init__(self, layout: Layout, rank: int, mesh: DeviceMesh | None, seed: int, whole: bool) -> None:
        """Draw it; without a mesh, `sharded` cannot be had."""
        self.layout, self._mesh = layout, mesh
        generator = torch.Generator().manual_seed(seed)
        self.shares: dict[str, torch.Tensor] = {}
        self.whole: dict[str, torch.Tensor] = {}
        for number in range(layout.tensors):
            name = f"t{number:05d}"
            tensor = torch.empty(layout.ranks * layout.rows, layout.columns).uniform_(generator=generator)
            self.shares[name] = tensor[rank * layout.rows : (rank + 1) * layout.rows].clone()
            if whole:
                self.whole[name] = tensor

    @cached_property
    def sharded(self) -> dict[str, torch.Tensor]:
        """The same memory as `shares`, as DTensors."""
        return {name: self.as_sharded(share) for name, share in self.shares.items()}

    def as_sharded(self, share: torch.Tensor) -> torch.Tensor:
        """A rank's share as a DTensor."""
        sharded: torch.Tensor = DTensor.from_local(share, self._mesh, [Shard(0)], run_check=False)
        return sharded

    def mark(self, value: float) -> None:
        """Write a number into every tensor's every share, so that what another save left is not taken for this one."""
        for tensor in self.shares.values():
            tensor[0, 0] = value
        for tensor in self.whole.values():
            tensor[:: self.layout.rows, 0] = value

    def is_same(self, loaded: Tensors) -> bool:
        """Whether this is the state, to the last bit: this rank's shares of it, or the whole."""
        size = sum(tensor.numel() for tensor in loaded.values())
        mine: Tensors = self.shares if size == self.layout.share else self.whole
        if self.layout.ranks == 1:
            mine = self.shares
        return set(mine) == set(loaded) and all(_equal(loaded[name], tensor) for name, tensor in mine.items())


def _equal(first: torch.Tensor, second: torch.Tensor) -> bool:
    if first.dtype != second.dtype or first.shape != second.shape:
        return False
    return torch.equal(first.view(torch.int32), second.view(torch.int32))
