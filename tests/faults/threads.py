"""Ranks that are threads of this process: a rank can be killed a thousand times without starting a process.

The messages are the same as over gloo, and so is the end of a rank: whoever waits for it gets a RuntimeError.
"""

from __future__ import annotations

import threading
from typing import Any

import torch

from dist_toolkit.group import Group, Pending, Reduction
from dist_toolkit.world import World

_PATIENCE = 60.0  # seconds: only a test that hangs waits so long


class Hub:
    """Where the ranks of one group meet."""

    def __init__(self, ranks: int) -> None:
        self._barrier = threading.Barrier(ranks)
        self._slots: list[Any] = [None] * ranks
        self._sides: list[Hub] = []

    def exchange(self, rank: int, value: Any) -> list[Any]:
        """Everyone's value, by rank."""
        self._slots[rank] = value
        try:
            self._barrier.wait(_PATIENCE)
            found = list(self._slots)
            self._barrier.wait(_PATIENCE)
        except threading.BrokenBarrierError:
            raise RuntimeError("Connection closed by peer") from None
        return found

    def side(self) -> Hub:
        """Another one, that ends with this one."""
        side = Hub(len(self._slots))
        self._sides.append(side)
        return side

    def end(self) -> None:
        """A rank has ended: nobody waits for it any more."""
        for hub in (self, *self._sides):
            hub._barrier.abort()


class ThreadGroup(Group):
    """The group of ranks that are threads."""

    def __init__(self, rank: int, ranks: int, hub: Hub) -> None:
        world = World(rank=rank, local_rank=rank, world_size=ranks, local_world_size=ranks)
        super().__init__(world, torch.device("cpu"))
        self.hub = hub

    def barrier(self) -> None:
        self.hub.exchange(self.world.rank, None)

    def all_gather_bytes(self, data: bytes) -> list[bytes]:
        return self.hub.exchange(self.world.rank, data)

    def broadcast_bytes(self, data: bytes, src: int = 0) -> bytes:
        return self.hub.exchange(self.world.rank, data)[src]

    def all_reduce(self, tensor: torch.Tensor, op: Reduction = "sum") -> torch.Tensor:
        rows = torch.stack(self.hub.exchange(self.world.rank, tensor.clone()))
        tensor.copy_({"sum": rows.sum(0), "max": rows.amax(0), "min": rows.amin(0)}[op])
        return tensor

    def start_all_reduce(self, tensor: torch.Tensor, op: Reduction = "sum") -> Pending:
        return Pending(self.all_reduce(tensor, op))

    def broadcast(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.copy_(self.hub.exchange(self.world.rank, tensor.clone())[0])

    def all_gather(self, tensor: torch.Tensor) -> list[torch.Tensor]:
        return self.hub.exchange(self.world.rank, tensor.clone())

    def side_channel(self) -> Group:
        mine = self.hub.side() if self.world.is_main else None
        return ThreadGroup(self.world.rank, self.world.world_size, self.hub.exchange(self.world.rank, mine)[0])

    def close(self, failed: bool = False) -> None:
        """Nothing to end."""
