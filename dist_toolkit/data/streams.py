"""What runs where an iterable data set is read: in the main process, or in a loader worker.

A worker is not asked for "the next batch" but for a named one, so nothing but the request says where the data stand:
which epoch, which stream, from which item. The reader keeps a stream open between requests, and opens it again and
skips where a request is not the next one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch.utils.data import Dataset, default_collate
from torch.utils.data._utils import worker as worker_state

from dist_toolkit.data.fetch import Generators, Samples, SeededCollate, put_generators, seed_cpu, take_generators
from dist_toolkit.data.heads import Head
from dist_toolkit.seeding import derive

Splitting = Literal["items", "shards", "workers", "itself"]
"""Who divides the data: `items`: this package, item by item, every reader reading all; `shards`: the data set's
shard(index=, count=); `workers`: the data set, by torch's get_worker_info, in which each rank's each worker is a worker
of its own; `itself`: the data set, by rank and by worker."""


class StreamRequest(NamedTuple):
    """One batch of a stream."""

    iteration: int
    """Number of the `for` that asks: each one opens the streams anew."""
    epoch: int
    slot: int
    """The stream: 0 where all readers read the same one, otherwise its number among this rank's `slots`."""
    slots: int
    first: int
    """Items of the stream before the batch."""
    size: int
    """Items of the batch, over all ranks where all readers read the same stream."""


@dataclass(frozen=True)
class Reading:
    """How this rank reads.

    Attributes:
        fill: in training, a rank that would get no item of a batch gets a copy of its first.
        sample_rng: the data set's random numbers follow from (seed, epoch, stream), so streams can be read again.
    """

    splitting: Splitting
    rank: int
    world_size: int
    seed: int
    fill: bool
    sample_rng: bool


class Fetched(NamedTuple):
    """What a reader gives for a request."""

    batch: Any
    """Collated; None where there is no item."""
    mine: int
    """This rank's items in it; 0 for a copy."""
    total: int
    """Items found for the request; fewer than asked for at the end of the stream."""
    head: str
    """A digest of the stream's first items, where all readers read the same stream; see `Head`."""


class StreamSamples(Samples):
    """The items of a batch, on the way from the reader to collate."""

    mine: int = 0
    total: int = 0
    head: str = ""


class _Stream:
    """One pass over the data set, with random numbers of its own."""

    def __init__(self, dataset: Any, request: StreamRequest, reading: Reading) -> None:
        self.key = request.iteration, request.epoch, request.slots
        self.position = 0
        self._dataset, self._epoch, self._reading = dataset, request.epoch, reading
        self._slot, self._slots = request.slot, request.slots
        self.head = Head(request.size) if reading.splitting == "items" else None
        self._items: Iterator[Any] | None = None
        self._rng: Generators | None = None

    def take(self, count: int, keep: Callable[[int], bool]) -> tuple[list[Any], int]:
        """The next `count` items of which `keep(number in the batch)` holds, and how many there were in all."""
        with self._place():
            if self._items is None:
                self._items = iter(self._open())
            kept, found = [], 0
            while found < count:
                try:
                    item = next(self._items)
                except StopIteration:
                    self._items = iter(())
                    break
                if self.head is not None:
                    self.head.see(item)
                if keep(found):
                    kept.append(item)
                found += 1
        self.position += found
        return kept, found

    def _open(self) -> Any:
        reading, dataset = self._reading, _with_own_epoch(self._dataset)
        if callable(getattr(dataset, "set_epoch", None)):
            dataset.set_epoch(self._epoch)
        if reading.splitting == "shards":
            return dataset.shard(index=self._number(), count=reading.world_size * self._slots)
        return dataset

    def _number(self) -> int:
        """This stream's number among all: neighbours are on different ranks, so a few shards spread over ranks."""
        return self._reading.rank + self._reading.world_size * self._slot

    @contextmanager
    def _place(self) -> Iterator[None]:
        """The surroundings that the data set's code sees: its worker info, and its random numbers."""
        before, seeded = worker_state._worker_info, self._reading.sample_rng
        outside = take_generators() if seeded and before is None else None  # in a worker nothing else draws
        try:
            worker_state._worker_info = self._worker_info(before)
            if seeded:
                self._install()
            yield
        finally:
            worker_state._worker_info = before
            if seeded:
                self._rng = take_generators()
            if outside is not None:
                put_generators(outside)

    def _install(self) -> None:
        if self._rng is not None:
            put_generators(self._rng)
        else:
            number = 0 if self._reading.splitting == "items" else self._number()
            seed_cpu(derive(self._reading.seed, "stream", self._epoch, number))

    def _worker_info(self, mine: Any) -> Any:
        """What get_worker_info() tells the data set. None hides the worker: so that the data are not split twice."""
        reading = self._reading
        if reading.splitting in ("items", "shards"):
            return None
        seed = derive(reading.seed, "worker", self._epoch, self._number())
        if reading.splitting == "workers":
            return worker_state.WorkerInfo(
                id=self._number(), num_workers=reading.world_size * self._slots, seed=seed, dataset=self._dataset
            )
        if mine is None and self._slots == 1:
            return None
        return worker_state.WorkerInfo(id=self._slot, num_workers=self._slots, seed=seed, dataset=self._dataset)


def _with_own_epoch(dataset: Any) -> Any:
    """Not shared with other workers: Hugging Face's is a number in shared memory, and its `set_epoch` adds to it.

    Two workers that set it at once would both add, and read in the order of another epoch than the others.
    """
    if not isinstance(getattr(dataset, "_epoch", None), torch.Tensor):
        return dataset
    own = object.__new__(type(dataset))  # copy.copy would share the attributes: its __getstate__ gives its own dict
    own.__dict__.update(dataset.__dict__)
    own._epoch = dataset._epoch.clone()
    return own


class StreamDataset(Dataset[Any]):
    """An iterable data set addressed by StreamRequest. torch's loader sees a map-style data set."""

    def __init__(self, dataset: Any, reading: Reading) -> None:
        self.dataset, self._reading = dataset, reading
        self._streams: dict[int, _Stream] = {}

    def __getitems__(self, requests: Sequence[StreamRequest]) -> StreamSamples:
        """The items of one request; torch's loader calls this once a batch."""
        (request,) = requests
        reading = self._reading
        stream = self._stream_at(request)
        if reading.splitting == "items":
            # Dealt out like cards: so a batch that the end of the data cuts short is still divided evenly.
            kept, total = stream.take(request.size, lambda n: n == 0 or n % reading.world_size == reading.rank)
            mine = kept if reading.rank == 0 else kept[1:]
            samples = StreamSamples(mine or (kept if reading.fill else []))
            samples.mine, samples.total = len(mine), total
            samples.head = "" if stream.head is None else stream.head.digest()
        else:
            kept, total = stream.take(request.size, lambda n: True)
            samples = StreamSamples(kept)
            samples.mine = samples.total = total
        samples.seed = derive(reading.seed, "batch", request.epoch, reading.rank, request.slot, request.first)
        return samples

    def starting_worker(self, info: Any, dataset: Any) -> Any:
        """What get_worker_info() tells worker_init_fn: what it tells the data set later, so no split is made twice."""
        reading, number, of = self._reading, info.id, info.num_workers
        if reading.splitting in ("items", "shards"):
            number, of = 0, 1
        elif reading.splitting == "workers":
            number, of = reading.rank + reading.world_size * info.id, reading.world_size * info.num_workers
        return worker_state.WorkerInfo(id=number, num_workers=of, seed=info.seed, dataset=dataset)

    def _stream_at(self, request: StreamRequest) -> _Stream:
        stream = self._streams.get(request.slot)
        if (
            stream is None
            or stream.key != (request.iteration, request.epoch, request.slots)
            or stream.position > request.first
        ):
            stream = self._streams[request.slot] = _Stream(self.dataset, request, self._reading)
        if stream.position < request.first:
            stream.take(request.first - stream.position, lambda n: False)
        return stream

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_streams": {}}


class StreamCollate:
    """The user's collate function (default: torch's), with the counts beside the batch."""

    def __init__(self, collate: Callable[[list[Any]], Any] | None, seeded: bool) -> None:
        plain = collate is None or collate is default_collate
        self._collate: Callable[[list[Any]], Any] = (
            default_collate if collate is None else collate if plain or not seeded else SeededCollate(collate)
        )

    def __call__(self, samples: Any) -> Fetched:
        """Collate one batch; where it has no item, there is nothing to collate."""
        return Fetched(self._collate(samples) if samples else None, samples.mine, samples.total, samples.head)
