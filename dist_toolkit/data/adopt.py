"""Take over a torch DataLoader that a script already has."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    RandomSampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from dist_toolkit.data.build import Choices, Place, build_loader, is_iterable, source_of
from dist_toolkit.data.feeds import MapFeed
from dist_toolkit.data.listed import ListedOrder, Listing, OwnBatches, parts_of
from dist_toolkit.data.loader import Loader
from dist_toolkit.data.order import GlobalOrder, Order
from dist_toolkit.data.sampler import BatchSource, SampleKey, Share
from dist_toolkit.data.weighted import WeightedOrder, checked_weights
from dist_toolkit.data.workers import WorkerOptions
from dist_toolkit.errors import ConfigError

_LOG = logging.getLogger("dist_toolkit")


class DistributedSamplerSource:
    """The batches of a loader that has a DistributedSampler: its own split, with set_epoch called for it.

    The split depends on the number of ranks, so a resume needs the same number. It gives every rank as many samples, so
    every batch has weight 1.
    """

    def __init__(self, batch_sampler: BatchSampler, sampler: DistributedSampler[Any]) -> None:
        self._batches, self._sampler = batch_sampler, sampler

    def prepare(self, epoch: int) -> None:
        """Nothing."""

    def batches(self, epoch: int, start: int) -> Iterator[Share]:
        """This rank's batches; a position counts samples of this rank times the ranks."""
        self._sampler.set_epoch(epoch)
        ranks, rank = self._sampler.num_replicas, self._sampler.rank
        stop = 0
        for indices in self._batches:
            first, stop = stop, stop + len(indices) * ranks
            if first >= start:
                keys = [SampleKey(epoch, first + i * ranks + rank, int(index)) for i, index in enumerate(indices)]
                yield Share(stop, keys, 1.0)

    def end(self, epoch: int) -> int:
        """The position after the last batch."""
        batch, samples = self._batches.batch_size, self._sampler.num_samples
        per_rank = samples - samples % batch if self._batches.drop_last else samples
        return per_rank * self._sampler.num_replicas

    def batches_per_epoch(self) -> int:
        """Batches that this rank gets in a whole epoch."""
        return len(self._batches)

    def identity(self) -> dict[str, int | bool | str]:
        """The sampler's parameters, the number of ranks among them."""
        sampler = self._sampler
        return {
            "length": len(sampler.dataset),  # type: ignore[arg-type]
            "shuffle": sampler.shuffle,
            "seed": sampler.seed,
            "ranks": sampler.num_replicas,
            "batch_size": self._batches.batch_size,
        }


def shard(loader: DataLoader[Any], place: Place, *, train: bool | None = None) -> Loader:
    """Make a torch DataLoader right for this number of ranks. Collective where it has a sampler of the user's.

    `loader.batch_size` (or what its batch sampler gives) is taken as the global batch, so the script means the same on
    one rank and on many. torch's own samplers become global orders of the run's seed; another sampler is read once an
    epoch, the same on every rank (see `Listing`). A sampler that divides the data over ranks itself keeps its batches,
    and gets `set_epoch` called.

    Args:
        train: whether the loader keeps its position from one `for` to the next; None: unless it goes in order.

    Raises:
        ConfigError: the loader does not batch, or a sampler is for other ranks, or lies; the message names it.
    """
    if not isinstance(loader, DataLoader):
        raise ConfigError(
            f"rt.shard takes a torch DataLoader, not a {type(loader).__name__}; for a data set: rt.loader"
        )
    if loader.batch_sampler is None:
        raise ConfigError("the loader has batch_size=None, and batches are what is shared out; set a batch size")
    sampler, batches = loader.sampler, loader.batch_sampler
    if is_iterable(loader.dataset):
        return _adopt_iterable(loader, place, train)
    if type(batches) is BatchSampler and type(sampler) is DistributedSampler:
        return _keep_distributed(loader, batches, sampler, place, train)
    if _own_split(batches):
        return _keep_own(loader, batches, place, train)
    if type(batches) is not BatchSampler:
        choices = Choices(train=train is not False, batch_sampler=batches)
        return build_loader(loader.dataset, place, choices, _options(loader))
    if type(sampler) in _KNOWN and not len(sampler):  # type: ignore[arg-type]
        raise ConfigError("the data set is empty")
    train = type(sampler) is not SequentialSampler if train is None else train
    choices = Choices(batches.batch_size, train=train, drop_last=batches.drop_last)
    dataset, order = _order(loader.dataset, sampler, place)
    if not train and batches.drop_last and order.length % choices.batch and place.world.is_main:
        _LOG.warning(
            "drop_last=True leaves out %d of %d samples of an evaluation; make the DataLoader with drop_last=False",
            order.length % choices.batch,
            order.length,
        )
    return _loader(loader, dataset, source_of(order, place, choices), place, train)


_KNOWN = (SequentialSampler, RandomSampler, SubsetRandomSampler, WeightedRandomSampler)


def _order(dataset: Any, sampler: Any, place: Place) -> tuple[Any, Order]:
    """The global order that stands for a sampler, and the data set that its indices are of."""
    kind, seed, count = type(sampler), place.seed, len(dataset)
    if kind is SequentialSampler:
        return dataset, GlobalOrder(count, False, seed)
    if kind is RandomSampler and sampler.replacement:
        return dataset, WeightedOrder(np.ones(count), sampler.num_samples, seed)
    if kind is RandomSampler and sampler.num_samples == count:
        return dataset, GlobalOrder(count, True, seed)
    if kind is SubsetRandomSampler:
        chosen = Subset(dataset, [int(index) for index in sampler.indices])
        return chosen, GlobalOrder(len(chosen), True, seed)
    if kind is WeightedRandomSampler and sampler.replacement:
        weights = checked_weights(sampler.weights, count)
        return dataset, WeightedOrder(weights, sampler.num_samples, seed)
    return dataset, ListedOrder(Listing(sampler, count, seed, place.group), seed)


def _adopt_iterable(loader: DataLoader[Any], place: Place, train: bool | None) -> Loader:
    if train is None:
        raise ConfigError(
            "an iterable data set does not tell whether it is for training; pass train=True or train=False to rt.shard"
        )
    drop_last = bool(getattr(loader, "drop_last", False))
    if drop_last and not train and place.world.is_main:
        _LOG.warning("drop_last=True leaves out the end of an evaluation; make the DataLoader with drop_last=False")
    choices = Choices(loader.batch_size, train=train, drop_last=drop_last)
    return build_loader(loader.dataset, place, choices, _options(loader))


def _keep_distributed(
    loader: DataLoader[Any], batches: BatchSampler, sampler: DistributedSampler[Any], place: Place, train: bool | None
) -> Loader:
    _check_ranks("DistributedSampler", sampler, place)
    train = bool(sampler.shuffle) if train is None else train
    if place.world.is_main:
        _say_what_is_lost(batches, sampler, train)
    return _loader(loader, loader.dataset, DistributedSamplerSource(batches, sampler), place, train)


def _say_what_is_lost(batches: BatchSampler, sampler: DistributedSampler[Any], train: bool) -> None:
    ranks, batch = sampler.num_replicas, batches.batch_size
    surplus = sampler.total_size - len(sampler.dataset)  # type: ignore[arg-type]
    dropped = max(0, -surplus) + (sampler.num_samples % batch * ranks if batches.drop_last else 0)
    said = [f"repeats {surplus} samples an epoch, so that ranks have as many"] if surplus > 0 else []
    said += [f"leaves out {dropped} samples an epoch"] if dropped else []
    said += [f"needs {ranks} ranks again on a resume"] if train else []
    if said:
        instead = f"rt.loader(data, global_batch_size={batch * ranks}, {'drop_last' if train else 'train'}=False)"
        _LOG.warning("the loader keeps its DistributedSampler, which %s; %s does not", " and ".join(said), instead)


def _keep_own(loader: DataLoader[Any], batches: Any, place: Place, train: bool | None) -> Loader:
    """A sampler of the user's that knows ranks: its batches are this rank's."""
    own = _own_split(batches)
    name = type(own).__name__
    _check_ranks(name, own, place)
    if place.world.is_main:
        _LOG.warning(
            "%s divides the data over the ranks itself: a resume needs as many ranks, and whether each sample comes "
            "once is up to it",
            name,
        )
    listing = Listing(batches, len(loader.dataset), place.seed, place.group, per_rank=True)  # type: ignore[arg-type]
    source = OwnBatches(listing, place.world.rank, place.world.world_size, place.group)
    return _loader(loader, loader.dataset, source, place, train is not False)


def _own_split(batches: Any) -> Any:
    """The part of a batch sampler that divides the data over ranks: torch's convention is `num_replicas`."""
    return next((part for part in parts_of(batches) if isinstance(getattr(part, "num_replicas", None), int)), None)


def _check_ranks(name: str, sampler: Any, place: Place) -> None:
    world, rank = place.world, getattr(sampler, "rank", None)
    if (sampler.num_replicas, rank) != (world.world_size, world.rank):
        raise ConfigError(
            f"the loader's {name} is for rank {rank} of {sampler.num_replicas}, "
            f"but this is rank {world.rank} of {world.world_size}; build it without num_replicas and rank, after init()"
        )


def _loader(loader: DataLoader[Any], dataset: Any, source: BatchSource, place: Place, train: bool) -> Loader:
    feed = MapFeed(dataset, source, seed=place.seed, sample_rng=None, options=_options(loader))
    said = {
        "train": train,
        "drop_last": getattr(loader.batch_sampler, "drop_last", None),
        "num_workers": loader.num_workers,
    }
    if isinstance(source, DistributedSamplerSource):
        said["samples of a rank"] = loader.sampler.num_samples  # type: ignore[attr-defined]
    return Loader(feed, train=train, device=place.device, said=said)


def _options(loader: DataLoader[Any]) -> WorkerOptions:
    options: WorkerOptions = {
        "num_workers": loader.num_workers,
        "collate_fn": loader.collate_fn,
        "pin_memory": loader.pin_memory,
        "timeout": loader.timeout,
        "worker_init_fn": loader.worker_init_fn,
        "persistent_workers": loader.persistent_workers,
    }
    if loader.num_workers > 0:
        options["multiprocessing_context"] = loader.multiprocessing_context
        options["prefetch_factor"] = loader.prefetch_factor
    return options
