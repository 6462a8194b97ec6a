"""Collective forward passes that ranks call a different number of times: who has no batch left runs along.

As torch's Join does it, but for a forward pass: before each one the ranks tell each other who still has a batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist

from dist_toolkit.process_group import Group
from dist_toolkit.tensors import map_tensors

Inputs = tuple[tuple[Any, ...], dict[str, Any]]


class ShadowCalls:
    """Calls of a collective function of a batch. All ranks must call `finish` after their last one.

    Args:
        call: takes positional and named arguments. It is collective, and it may be run again on the newest ones.
    """

    def __init__(self, group: Group, call: Callable[[tuple[Any, ...], dict[str, Any]], Any]) -> None:
        self._group, self._call = group, call
        self._newest: Inputs | None = None

    def __call__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What `call` returns. Collective with any rank's call or `finish`."""
        self._newest = (args, kwargs)
        with self._group.watched("engine forward"):
            self._round(active=True)
            return self._call(args, kwargs)

    def finish(self) -> None:
        """Run along until no rank has a batch left. Collective.

        Of its own newest batch; a rank that never had one gets that of the first rank that has.
        """
        while True:
            with self._group.watched("engine forward"):
                if not self._round(active=False):
                    return
                if self._newest is None:
                    raise AssertionError("a rank without a batch was given none")
                self._call(*self._newest)

    def _round(self, active: bool) -> bool:
        """Whether any rank has a batch. One reduction of three numbers, on the CPU."""
        world = self._group.world
        told = torch.tensor([active, self._newest is None, world.world_size - world.rank if active else 0])
        busy, lacking, first = self._group.all_reduce(told.to(torch.int64), "max").tolist()
        if busy and lacking:
            self._share(world.world_size - first)
        return bool(busy)

    def _share(self, source: int) -> None:
        """Give rank `source`'s newest batch to the ranks that have had none."""
        mine = self._group.world.rank == source
        # through the CPU: a pickled CUDA tensor would come back on the sender's device
        box = [map_tensors(self._newest, lambda tensor: tensor.cpu()) if mine else None]
        dist.broadcast_object_list(box, src=source, device=self._group.device)
        if self._newest is None:
            self._newest = map_tensors(box[0], lambda tensor: tensor.to(self._group.device))
