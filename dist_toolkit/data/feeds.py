"""Where a loader's batches come from, through torch's DataLoader."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Protocol

from torch.utils.data import Dataset, default_collate

from dist_toolkit.data.fetch import (
    KeyedDataset,
    KeyedTensors,
    SeededCollate,
    as_it_is,
    draws_nothing,
    is_tensors,
)
from dist_toolkit.data.sampler import BatchSource, SampleKey
from dist_toolkit.data.workers import WorkerOptions, end_workers, torch_loader


class Ready(NamedTuple):
    """A batch that can be handed out."""

    batch: Any
    stop: int
    """The loader's position once it is handed out."""
    weight: float
    """See `Share.weight`."""


class Feed(Protocol):
    """This rank's batches, from any point of any epoch."""

    dataset: Any

    def ready(self, epoch: int, start: int) -> Iterator[Ready]:
        """The batches from position `start` of `epoch`. May be collective: ranks stay in step."""
        ...

    def at_end(self, epoch: int, position: int) -> bool:
        """Whether `position` is known to be the end of `epoch`; a feed without a length learns it by reading."""
        ...

    def batches_per_epoch(self) -> int:
        """Batches that this rank gets in a whole epoch. Raises TypeError where only reading would tell."""
        ...

    def identity(self) -> dict[str, int | bool | str]:
        """What must be the same on a resume for the order to be the same."""
        ...

    def settings(self) -> dict[str, int]:
        """What a resume takes over from the saved state."""
        ...

    def take_over(self, state: Mapping[str, Any]) -> None:
        """Take the settings of a saved state."""
        ...

    def close(self) -> None:
        """End the workers, if any are running."""
        ...


class MapFeed:
    """The batches of a map-style data set that a source names."""

    def __init__(
        self, dataset: Any, source: BatchSource, *, seed: int, sample_rng: bool | None, options: WorkerOptions
    ) -> None:
        self.dataset, self._source = dataset, source
        self._requests = _Shares(source)
        seeded = not draws_nothing(dataset) if sample_rng is None else sample_rng
        keyed: Dataset[Any] = KeyedDataset(dataset, seed, seeded)
        collate = options.get("collate_fn") or default_collate
        if collate is not default_collate and sample_rng is not False:
            options = {**options, "collate_fn": SeededCollate(collate)}
        elif collate is default_collate and not seeded and is_tensors(dataset):
            keyed, options = KeyedTensors(dataset), {**options, "collate_fn": as_it_is}
        self._loader = torch_loader(keyed, self._requests, options)

    def ready(self, epoch: int, start: int) -> Iterator[Ready]:
        """The batches from position `start` of `epoch`. Collective where the source's `prepare` is."""
        self._source.prepare(epoch)
        drawn = self._requests.aim(epoch, start)
        for batch in self._loader:
            yield Ready(batch, *drawn.popleft())

    def at_end(self, epoch: int, position: int) -> bool:
        """Whether no batch is left. Collective where the source's `prepare` is."""
        self._source.prepare(epoch)
        return position >= self._source.end(epoch)

    def batches_per_epoch(self) -> int:
        """Batches that this rank gets in a whole epoch."""
        return self._source.batches_per_epoch()

    def identity(self) -> dict[str, int | bool | str]:
        """The source's."""
        return self._source.identity()

    def settings(self) -> dict[str, int]:
        """None."""
        return {}

    def take_over(self, state: Mapping[str, Any]) -> None:
        """Nothing."""

    def close(self) -> None:
        """End the workers."""
        end_workers(self._loader)


class _Shares:
    """The batch sampler that torch's DataLoader draws from: the shares of the epoch it was last aimed at."""

    def __init__(self, source: BatchSource) -> None:
        self._source = source
        self._epoch = self._start = 0
        self._drawn: deque[tuple[int, float]] = deque()

    def aim(self, epoch: int, start: int) -> deque[tuple[int, float]]:
        """Set where the next iteration starts; the returned queue gets (stop, weight) of each share that is drawn."""
        self._epoch, self._start, self._drawn = epoch, start, deque()
        return self._drawn

    def __iter__(self) -> Iterator[list[SampleKey]]:
        drawn = self._drawn
        for stop, keys, weight in self._source.batches(self._epoch, self._start):
            if keys:
                drawn.append((stop, weight))
                yield keys
