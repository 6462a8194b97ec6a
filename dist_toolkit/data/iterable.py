"""Batches of an iterable data set, on any number of ranks and workers.

Where the data set does not divide itself, every reader reads all of it and takes its share of each global batch. The
order is then the data set's own, at any number of ranks and workers, and all ranks learn of the end without a message.
Where it divides itself, each rank's streams may end at another step; in training the ranks then add up, one batch
ahead, how many samples each step has.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import count
from typing import Any, NamedTuple

from dist_toolkit.data.agreed import Local, in_step
from dist_toolkit.data.feeds import Ready
from dist_toolkit.data.heads import HeadCheck
from dist_toolkit.data.splitting import shuffle_digest
from dist_toolkit.data.streams import Fetched, Reading, StreamCollate, StreamDataset, StreamRequest
from dist_toolkit.data.workers import WorkerOptions, end_workers, torch_loader
from dist_toolkit.process_group import Group


class StreamSpec(NamedTuple):
    """What the batches of a stream are."""

    global_batch_size: int
    train: bool
    drop_last: bool
    same_items: bool = False
    """The user says that all readers read the same items: a difference is a warning, no error."""


class StreamFeed:
    """This rank's batches of an iterable data set."""

    def __init__(
        self, dataset: Any, reading: Reading, spec: StreamSpec, group: Group | None, options: WorkerOptions
    ) -> None:
        self.dataset, self._reading, self._spec, self._group = dataset, reading, spec, group
        self._by_items = reading.splitting == "items"
        self._heads = HeadCheck(type(dataset).__name__, group, strict=not spec.same_items)
        slots = 1 if self._by_items else max(1, options.get("num_workers", 0))
        per_rank = -(-spec.global_batch_size // reading.world_size)
        size = spec.global_batch_size if self._by_items else per_rank
        self._requests = _Requests(slots, size, by_items=self._by_items)
        collate = StreamCollate(options.get("collate_fn"), reading.sample_rng)
        self._loader = torch_loader(StreamDataset(dataset, reading), self._requests, {**options, "collate_fn": collate})

    def ready(self, epoch: int, start: int) -> Iterator[Ready]:
        """The batches from position `start`: in items where the readers share them out, otherwise in rounds of batches.

        Collective in training where the data set divides itself: one small reduction a step. Where its items are
        shared out, the first iteration is: the ranks compare what they read first.
        """
        self._requests.aim(epoch, start)
        if self._by_items:
            return self._shared_out(start)
        if not self._spec.train:
            return (Ready(found.batch, found.stop, 1.0) for found in self._own(start) if found.samples)
        return in_step(self._own(start), self._group, self._reading.world_size)

    def at_end(self, epoch: int, position: int) -> bool:
        """Never known beforehand."""
        return False

    def batches_per_epoch(self) -> int:
        """Only reading would tell: TypeError."""
        name = type(self.dataset).__name__
        raise TypeError(f"a loader over the iterable {name} has no length; count steps, not epochs: until=STEPS")

    def identity(self) -> dict[str, int | bool | str]:
        """The way of dividing; the number of ranks where the order depends on it."""
        reading = self._reading
        facts: dict[str, int | bool | str] = {
            "stream": reading.splitting, "seed": reading.seed, "global_batch_size": self._spec.global_batch_size,
        }  # fmt: skip
        if not self._by_items:
            facts["ranks"] = reading.world_size
        shuffling = shuffle_digest(self.dataset)
        return {**facts, "shuffling": shuffling} if shuffling else facts

    def settings(self) -> dict[str, int]:
        """Streams of a rank: one a worker when the run began. They stay, so that the number of workers may change."""
        return {} if self._by_items else {"slots": self._requests.slots}

    def take_over(self, state: Mapping[str, Any]) -> None:
        """Go on with the saved number of streams."""
        self._requests.slots = int(state.get("slots", self._requests.slots))

    def close(self) -> None:
        """End the workers."""
        end_workers(self._loader)

    def _shared_out(self, start: int) -> Iterator[Ready]:
        spec, stop = self._spec, start
        fetched: Fetched
        for fetched in self._compared():
            whole = fetched.total == spec.global_batch_size
            if not whole:
                self._requests.ended = True
            stop += fetched.total
            handed = fetched.batch is not None and fetched.total > 0
            if handed and (whole or not spec.drop_last):
                yield Ready(fetched.batch, stop, fetched.mine * self._reading.world_size / fetched.total)

    def _compared(self) -> Iterator[Fetched]:
        """What the readers fetch, when it is known that they read the same stream."""
        fetches = iter(self._loader)
        first, failure = None, None
        try:
            first = next(fetches)
        except Exception as caught:
            failure = caught
        if self._heads.due:
            self._heads.ranks(None if first is None else first.head, failure)
        if failure is not None:
            raise failure
        assert first is not None  # there is a request for the first items of any stream
        yield first
        for fetched in fetches:
            self._heads.readers(first.head, fetched.head)
            yield fetched

    def _own(self, start: int) -> Iterator[Local]:
        """What this rank's own streams give, in turns; in training without an end, as other ranks may go on."""
        requests, stop = self._requests, start
        alive = set(range(requests.slots))
        fetched: Fetched
        for stop, fetched in enumerate(self._loader, start + 1):
            short = fetched.total < requests.size
            if short:
                alive.discard((stop - 1) % requests.slots)
                requests.ended = not alive
            dropped = short and self._spec.drop_last
            yield Local(None if dropped else fetched.batch, stop, 0 if dropped else fetched.mine, len(alive))
        if self._spec.train:
            yield from (Local(None, number, 0, 0) for number in count(stop + 1))


class _Requests:
    """The batch sampler that torch's DataLoader draws from: requests until the reader found the end.

    Attributes:
        slots: streams, taken in turn.
        size: items of a request.
        ended: set when no stream has anything left.
    """

    def __init__(self, slots: int, size: int, by_items: bool) -> None:
        self.slots, self.size, self._by_items = slots, size, by_items
        self.ended = False
        self._iteration = self._epoch = self._start = 0

    def aim(self, epoch: int, start: int) -> None:
        """Set where the next iteration starts: an item where all read the same stream, otherwise a request."""
        self._iteration += 1
        self._epoch, self._start, self.ended = epoch, start, False

    def __iter__(self) -> Iterator[list[StreamRequest]]:
        iteration, epoch = self._iteration, self._epoch
        for number in count(self._start, self.size) if self._by_items else count(self._start):
            if self.ended or iteration != self._iteration:
                return
            slot, turn = (0, 0) if self._by_items else (number % self.slots, number // self.slots)
            first = number if self._by_items else turn * self.size
            yield [StreamRequest(iteration, epoch, slot, self.slots, first, self.size)]
