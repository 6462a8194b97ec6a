"""A loader whose place in the data is two numbers, and which a checkpoint can put back exactly."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypedDict

import torch
from torch.utils.data import DataLoader, IterableDataset, default_collate

from dist_toolkit.data.fetch import KeyedDataset, SeededCollate, WorkerInit, draws_nothing
from dist_toolkit.data.order import GlobalOrder
from dist_toolkit.data.sampler import BatchSource, SampleKey, ShareSampler
from dist_toolkit.errors import ConfigError, StateMismatch
from dist_toolkit.tensors import map_tensors
from dist_toolkit.world import World


class WorkerOptions(TypedDict, total=False):
    """What is handed to torch's DataLoader as it is; see its documentation."""

    num_workers: int
    collate_fn: Callable[[list[Any]], Any] | None
    pin_memory: bool
    timeout: float
    worker_init_fn: Callable[[int], None] | None
    multiprocessing_context: Any
    prefetch_factor: int | None
    persistent_workers: bool


class Loader:
    """Iterates over this rank's batches of one epoch, on the device of the rank.

    A training loader goes on: each `for` takes up at the position where the last one stopped, and an epoch that ended
    is followed by the next one, in a new order. An evaluation loader starts from the first sample each time. Only
    batches that were handed out count: what workers have prefetched is fetched again after a resume.

    Attributes:
        epoch: number of the epoch, from 0.
        position: samples of the epoch, over all ranks, that were handed out.
    """

    def __init__(
        self, dataset: Any, source: BatchSource, *, seed: int, train: bool, device: torch.device,
        sample_rng: bool | None, options: WorkerOptions,
    ) -> None:  # fmt: skip
        self.dataset, self.train, self.device = dataset, train, device
        self.epoch = 0
        self.position = 0
        self._source = source
        self._batches = _EpochBatches(source)
        self._on_iter: Callable[[], None] | None = None
        keyed = KeyedDataset(dataset, seed, not draws_nothing(dataset) if sample_rng is None else sample_rng)
        options = {"pin_memory": device.type == "cuda", **options}
        collate = options.get("collate_fn")
        if collate is not None and collate is not default_collate and sample_rng is not False:
            options["collate_fn"] = SeededCollate(collate)
        if options.get("num_workers", 0) > 0:
            options["worker_init_fn"] = WorkerInit(options.get("worker_init_fn"))
        # A generator of its own: torch's loader draws a seed from it at each epoch, which must not move the training's.
        self._loader: DataLoader[Any] = DataLoader(
            keyed, batch_sampler=self._batches, generator=torch.Generator(), **options
        )

    def __len__(self) -> int:
        """Batches that this rank gets in a whole epoch."""
        return self._source.batches_per_epoch()

    def __iter__(self) -> Iterator[Any]:
        if self._on_iter is not None:
            self._on_iter()
        if not self.train:
            self.epoch = self.position = 0
        elif self.position >= self._source.end(self.epoch):
            self._next_epoch()
        ends = self._batches.aim(self.epoch, self.position)
        for batch in self._loader:
            self.position = ends.popleft()
            yield to_device(batch, self.device)
        self._next_epoch()

    def on_iter(self, call: Callable[[], None]) -> None:
        """Have `call()` run at the start of every iteration."""
        self._on_iter = call

    def state_dict(self) -> dict[str, Any]:
        """The place in the data: under 200 bytes as JSON, whatever the size of the data set."""
        return {"epoch": self.epoch, "position": self.position, **self._source.identity()}

    def check_state_dict(self, state: Mapping[str, Any]) -> None:
        """Refuse a place in another order.

        Raises:
            StateMismatch: the state is of another length, seed, shuffling or global batch size.
        """
        for name, mine in self._source.identity().items():
            saved = state.get(name)
            if saved != mine:
                raise StateMismatch(
                    "loader",
                    f"the loader's {name} is {mine!r}, but {saved!r} in the saved state: the samples would come in "
                    f"other batches; start with {name}={saved!r} again, or waive 'loader' to start the data anew",
                )

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to a place; the next `for` starts there.

        Raises:
            StateMismatch: see `check_state_dict`.
        """
        self.check_state_dict(state)
        self.epoch, self.position = int(state["epoch"]), int(state["position"])

    def close(self) -> None:
        """End the workers, if any are running."""
        iterator = getattr(self._loader, "_iterator", None)
        if iterator is not None and hasattr(iterator, "_shutdown_workers"):
            iterator._shutdown_workers()
        self._loader._iterator = None

    def _next_epoch(self) -> None:
        if self.train:
            self.epoch += 1
        self.position = 0


class _EpochBatches:
    """The batch sampler that torch's DataLoader draws from: the batches of the epoch it was last aimed at."""

    def __init__(self, source: BatchSource) -> None:
        self._source = source
        self._epoch = self._start = 0
        self._ends: deque[int] = deque()

    def aim(self, epoch: int, start: int) -> deque[int]:
        """Set where the next iteration starts; the returned queue gets the end position of each batch drawn."""
        self._epoch, self._start, self._ends = epoch, start, deque()
        return self._ends

    def __iter__(self) -> Iterator[list[SampleKey]]:
        ends = self._ends
        for stop, keys in self._source.batches(self._epoch, self._start):
            if keys:
                ends.append(stop)
                yield keys

    def __len__(self) -> int:
        return self._source.batches_per_epoch()


def build_loader(
    dataset: Any, world: World, *, global_batch_size: int, seed: int, device: torch.device, train: bool = True,
    shuffle: bool | None = None, drop_last: bool | None = None, sample_rng: bool | None = None, options: WorkerOptions,
) -> Loader:  # fmt: skip
    """A loader over a map-style data set.

    Args:
        global_batch_size: samples of one step over all ranks.
        train: shuffled, incomplete last batch dropped, position kept; otherwise in order, each sample exactly once.
        shuffle, drop_last: override what `train` says.
        sample_rng: seed the generators for each sample (see `KeyedDataset`); None: unless it is of plain tensors. False
            is for data without random numbers: with workers, they would not survive a resume.
        options: for torch's DataLoader.

    Raises:
        ConfigError: the data set has no length or is empty, or the batch does not divide over the ranks.
    """
    if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
        raise ConfigError(
            f"{type(dataset).__name__} is not a map-style data set (it needs __len__ and __getitem__); "
            "iterable data sets are not supported yet"
        )
    shuffle = train if shuffle is None else shuffle
    drop_last = train if drop_last is None else drop_last
    _check_batch(len(dataset), global_batch_size, world.world_size, train, drop_last)
    order = GlobalOrder(len(dataset), shuffle, seed)
    source = ShareSampler(order, global_batch_size, world.rank, world.world_size, drop_last)
    return Loader(dataset, source, seed=seed, train=train, device=device, sample_rng=sample_rng, options=options)


def _check_batch(length: int, batch: int, world_size: int, train: bool, drop_last: bool) -> None:
    if length < 1:
        raise ConfigError("the data set is empty")
    if not isinstance(batch, int) or batch < 1:
        raise ConfigError(f"global_batch_size={batch!r} is not a positive number")
    if not train:
        return
    if batch % world_size:
        nearest = max(1, round(batch / world_size)) * world_size
        raise ConfigError(
            f"global_batch_size={batch} does not divide over {world_size} ranks, "
            f"so ranks would weigh samples unequally; use {nearest}, or another number of ranks"
        )
    if drop_last and length < batch:
        raise ConfigError(
            f"an epoch of {length} samples has no whole batch of {batch}; use global_batch_size <= {length}"
        )
    if not drop_last and length % batch % world_size:
        raise ConfigError(
            f"drop_last=False leaves a last batch of {length % batch} samples, which does not divide over "
            f"{world_size} ranks, so ranks would weigh samples unequally; leave drop_last=True for training"
        )


def to_device(batch: Any, device: torch.device) -> Any:
    """The batch with every tensor in it (in lists, tuples, named tuples, dicts) on `device`."""
    if device.type == "cpu":
        return batch
    return map_tensors(batch, lambda tensor: tensor.to(device, non_blocking=True))
