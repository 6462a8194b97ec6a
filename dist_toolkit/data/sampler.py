"""Which positions of the global order this rank takes, batch by batch. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, repeat
from typing import NamedTuple, Protocol

import numpy as np

from dist_toolkit.data.order import Indices, Order

_AT_ONCE = 4096
"""Samples whose place in the order is computed in one go: one at a time costs a millisecond a batch."""


class SampleKey(NamedTuple):
    """What travels to a loader worker for one sample: the worker needs no state of its own."""

    epoch: int
    position: int
    sample: int
    """Index in the data set."""


class Share(NamedTuple):
    """One rank's part of a global batch."""

    stop: int
    """Position of the epoch after the global batch."""
    keys: list[SampleKey]
    """Empty where an evaluation's last batch has fewer samples than there are ranks."""
    weight: float
    """samples of this rank * ranks / samples of the global batch: the mean over ranks of weight * (mean over the
    rank's samples) is the mean over all samples. 0 where `keys` is a copy, there to keep this rank in step."""


class BatchSource(Protocol):
    """Where a loader over map-style data takes its batches from: any point of any epoch can be reached."""

    def prepare(self, epoch: int) -> None:
        """Get ready for `epoch`. May be collective: every rank calls it at the start of every iteration."""
        ...

    def batches(self, epoch: int, start: int) -> Iterator[Share]:
        """This rank's shares from position `start` of `epoch`, where a batch begins."""
        ...

    def end(self, epoch: int) -> int:
        """The position at which a prepared `epoch` ends."""
        ...

    def batches_per_epoch(self) -> int:
        """Batches that this rank gets in a whole epoch."""
        ...

    def identity(self) -> dict[str, int | bool | str]:
        """What must be the same on a resume for the order to be the same."""
        ...


@dataclass(frozen=True)
class Division:
    """How the positions of a global batch are divided over the ranks: sizes differ by at most one.

    Attributes:
        deal: deal positions out like cards (where a batch is sorted), instead of cutting it into slices.
        fill: give a rank that would get nothing a copy of one of the batch's samples, of weight 0.
    """

    rank: int
    world_size: int
    deal: bool = False
    fill: bool = False

    def positions(self, begin: int, stop: int) -> tuple[Indices, float]:
        """This rank's positions of the batch begin..stop-1, and their weight."""
        size = stop - begin
        first, last = share_bounds(size, self.rank, self.world_size)
        if first == last:
            copies = [begin + self.rank % size] if self.fill else []
            return np.array(copies, dtype=np.int64), 0.0
        mine = (
            np.arange(begin + self.rank, stop, self.world_size) if self.deal else np.arange(begin + first, begin + last)
        )
        return mine, (last - first) * self.world_size / size

    def has_share(self, size: int) -> bool:
        """Whether this rank gets a sample, or a copy, of a batch of `size`."""
        first, last = share_bounds(size, self.rank, self.world_size)
        return last > first or (self.fill and size > 0)


@dataclass(frozen=True)
class ShareSampler:
    """This rank's share of each global batch: the next `global_batch_size` positions of the order.

    So the samples of a global batch do not depend on the number of ranks, and a last, smaller batch is shared out too.
    """

    order: Order
    global_batch_size: int
    division: Division
    drop_last: bool

    def prepare(self, epoch: int) -> None:
        """Nothing, where the order is computed; an order that is read from a sampler is read here."""
        prepare = getattr(self.order, "prepare", None)
        if prepare is not None:
            prepare(epoch)

    def batches(self, epoch: int, start: int) -> Iterator[Share]:
        """This rank's shares, from position `start` of the epoch."""
        stretch: list[tuple[int, Indices, float]] = []
        pending = 0
        for begin in range(start, self.end(epoch), self.global_batch_size):
            stop = min(begin + self.global_batch_size, self.order.length)
            mine, weight = self.division.positions(begin, stop)
            stretch.append((stop, mine, weight))
            pending += len(mine)
            if pending >= _AT_ONCE:
                yield from self._look_up(epoch, stretch)
                stretch, pending = [], 0
        yield from self._look_up(epoch, stretch)

    def batches_per_epoch(self) -> int:
        """Batches that this rank gets in a whole epoch."""
        whole, rest = divmod(self.order.length, self.global_batch_size)
        has_share = self.division.has_share
        return whole * has_share(self.global_batch_size) + (not self.drop_last and has_share(rest))

    def identity(self) -> dict[str, int | bool | str]:
        """The order and the global batch: the number of ranks is not in it."""
        return {**self.order.identity(), "global_batch_size": self.global_batch_size}

    def end(self, epoch: int) -> int:
        """The position at which `epoch` ends: the length, less the incomplete batch if that is dropped."""
        length = self.order.length
        return length - length % self.global_batch_size if self.drop_last else length

    def _look_up(self, epoch: int, stretch: Sequence[tuple[int, Indices, float]]) -> Iterator[Share]:
        if not stretch:
            return
        positions = np.concatenate([mine for _, mine, _ in stretch])
        keys = map(SampleKey, repeat(epoch), positions.tolist(), self.order.at(epoch, positions).tolist())
        for stop, mine, weight in stretch:
            yield Share(stop, list(islice(keys, len(mine))), weight)


def share_bounds(size: int, rank: int, world_size: int) -> tuple[int, int]:
    """The half-open slice of `size` items that `rank` takes; slices differ in size by at most one."""
    quotient, rest = divmod(size, world_size)
    first = rank * quotient + min(rank, rest)
    return first, first + quotient + (rank < rest)
