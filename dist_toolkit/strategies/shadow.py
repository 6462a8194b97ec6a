"""Collective forward passes that ranks call a different number of times: who has no batch left runs along.

As torch's Join does it, but for forward passes: before each one the ranks tell each other who still has a batch.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from dist_toolkit.group import Group
from dist_toolkit.objects import broadcast_object
from dist_toolkit.tensors import map_tensors

Inputs = tuple[tuple[Any, ...], dict[str, Any]]
Call = Callable[[tuple[Any, ...], dict[str, Any]], Any]


class ShadowCalls:
    """Calls of collective functions of a batch, of one engine or of several. All ranks `finish` after their last one.

    While it is open, `finish` also runs before any other collective that a rank enters: one whose batches have run out
    may sum its metrics while others still have some.
    """

    def __init__(self, group: Group) -> None:
        self._group, self._owner = group, threading.get_ident()
        self._calls: list[Call] = []
        self._newest: list[Inputs | None] = []
        group.before_collective = self.finish

    @classmethod
    def open(cls, group: Group) -> tuple[ShadowCalls, bool]:
        """The group's, and whether it is new: engines that evaluate at the same time have one in common."""
        found = getattr(group.before_collective, "__self__", None)
        return (found, False) if isinstance(found, cls) else (cls(group), True)

    def add(self, call: Call) -> int:
        """Register a collective function; its number. It may be run again on the newest arguments it had."""
        self._calls.append(call)
        self._newest.append(None)
        return len(self._calls) - 1

    def remove(self) -> None:
        """Forget the newest function, after `finish`."""
        self._calls.pop()
        self._newest.pop()

    def close(self) -> None:
        """Let collectives be entered as they are."""
        self._group.before_collective = None

    def run(self, number: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What function `number` returns. Collective with any rank's `run` of it, or `finish`."""
        self._newest[number] = (args, kwargs)
        with self._quiet(), self._group.watched("engine forward"):
            self._round(number)
            return self._calls[number](args, kwargs)

    def finish(self) -> None:
        """Run along until no rank has a batch left. Collective.

        With its own newest batch; a rank that never had one gets that of the first rank that has. More may follow.
        Nothing on other threads: a save in the background does not wait for an evaluation.
        """
        while threading.get_ident() == self._owner:
            with self._quiet(), self._group.watched("engine forward"):
                number = self._round(None)
                if number is None:
                    return
                inputs = self._newest[number]
                if inputs is None:
                    raise AssertionError("a rank without a batch was given none")
                self._calls[number](*inputs)

    @contextmanager
    def _quiet(self) -> Iterator[None]:
        """The collectives in here are these calls' own: nothing has to be finished before them."""
        before, self._group.before_collective = self._group.before_collective, None
        try:
            yield
        finally:
            self._group.before_collective = before

    def _round(self, mine: int | None) -> int | None:
        """The number of the function that some rank is about to call, None if no rank is. One reduction on the CPU."""
        world = self._group.world
        busy = [0, 0] if mine is None else [mine + 1, world.world_size - world.rank]
        lacking = [newest is None for newest in self._newest]
        told = torch.tensor([*busy, *lacking], dtype=torch.int64)
        called, first, *lacked = self._group.all_reduce(told, "max").tolist()
        if not called:
            return None
        number: int = called - 1
        if lacked[number]:
            self._share(number, world.world_size - first)
        return number

    def _share(self, number: int, source: int) -> None:
        """Give rank `source`'s newest batch to the ranks that have had none."""
        newest = self._newest[number]
        mine = self._group.world.rank == source
        # through the CPU: a pickled CUDA tensor would come back on the sender's device
        sent = map_tensors(newest, lambda tensor: tensor.cpu()) if mine else None
        got = broadcast_object(self._group, sent, source)
        if newest is None:
            self._newest[number] = map_tensors(got, lambda tensor: tensor.to(self._group.device))
