"""Which positions of the global order this rank takes, batch by batch. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, repeat
from typing import NamedTuple, Protocol

import numpy as np

from dist_toolkit.data.order import GlobalOrder

_AT_ONCE = 4096
"""Samples whose place in the order is computed in one go: one at a time costs a millisecond a batch."""


class SampleKey(NamedTuple):
    """What travels to a loader worker for one sample: the worker needs no state of its own."""

    epoch: int
    position: int
    sample: int
    """Index in the data set."""


class BatchSource(Protocol):
    """Where a loader takes its batches from: a function of (epoch, position), so any point can be resumed."""

    def batches(self, epoch: int, start: int) -> Iterator[tuple[int, list[SampleKey]]]:
        """Pairs (position after the batch, this rank's samples of it), from position `start` of `epoch`."""
        ...

    def end(self, epoch: int) -> int:
        """The position at which `epoch` ends."""
        ...

    def batches_per_epoch(self) -> int:
        """Batches that this rank gets in a whole epoch."""
        ...

    def identity(self) -> dict[str, int | bool | str]:
        """What must be the same on a resume for the order to be the same."""
        ...


@dataclass(frozen=True)
class ShareSampler:
    """This rank's share of each global batch.

    A global batch is the next `global_batch_size` positions of the order; the ranks take contiguous slices of it whose
    sizes differ by at most one. So the samples of a global batch do not depend on the number of ranks, and the last,
    smaller batch of an evaluation is shared out too.
    """

    order: GlobalOrder
    global_batch_size: int
    rank: int
    world_size: int
    drop_last: bool

    def batches(self, epoch: int, start: int) -> Iterator[tuple[int, list[SampleKey]]]:
        """Pairs (position after the global batch, this rank's samples of it), from position `start` of the epoch.

        The list is empty where a last batch has fewer samples than there are ranks.
        """
        stretch: list[tuple[int, int, int]] = []
        pending = 0
        for begin in range(start, self.end(epoch), self.global_batch_size):
            stop = min(begin + self.global_batch_size, self.order.length)
            first, last = share_bounds(stop - begin, self.rank, self.world_size)
            stretch.append((stop, begin + first, begin + last))
            pending += last - first
            if pending >= _AT_ONCE:
                yield from self._look_up(epoch, stretch)
                stretch, pending = [], 0
        yield from self._look_up(epoch, stretch)

    def batches_per_epoch(self) -> int:
        """Batches that this rank gets in a whole epoch."""
        whole, rest = divmod(self.order.length, self.global_batch_size)
        return whole * self._has_share(self.global_batch_size) + (not self.drop_last and self._has_share(rest))

    def identity(self) -> dict[str, int | bool | str]:
        """The order and the global batch: the number of ranks is not in it."""
        order = self.order
        batch = self.global_batch_size
        return {"length": order.length, "shuffle": order.shuffle, "seed": order.seed, "global_batch_size": batch}

    def end(self, epoch: int) -> int:
        """The position at which `epoch` ends: the length, less the incomplete batch if that is dropped."""
        length = self.order.length
        return length - length % self.global_batch_size if self.drop_last else length

    def _has_share(self, size: int) -> bool:
        first, last = share_bounds(size, self.rank, self.world_size)
        return last > first

    def _look_up(self, epoch: int, stretch: Sequence[tuple[int, int, int]]) -> Iterator[tuple[int, list[SampleKey]]]:
        """The batches of a stretch of (position after the batch, first and last position of this rank's share)."""
        if not stretch:
            return
        positions = np.concatenate([np.arange(first, last) for _, first, last in stretch])
        keys = map(SampleKey, repeat(epoch), positions.tolist(), self.order.at(epoch, positions).tolist())
        for stop, first, last in stretch:
            yield stop, list(islice(keys, last - first))


def share_bounds(size: int, rank: int, world_size: int) -> tuple[int, int]:
    """The half-open slice of `size` items that `rank` takes; slices differ in size by at most one."""
    quotient, rest = divmod(size, world_size)
    first = rank * quotient + min(rank, rest)
    return first, first + quotient + (rank < rest)
