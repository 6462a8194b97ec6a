"""Take over a torch DataLoader that a script already has."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
)

from dist_toolkit.data.loader import Loader, WorkerOptions, build_loader
from dist_toolkit.data.sampler import SampleKey
from dist_toolkit.errors import ConfigError
from dist_toolkit.world import World

_LOG = logging.getLogger("dist_toolkit")


class DistributedSamplerSource:
    """The batches of a loader that has a DistributedSampler: its own split, with set_epoch called for it.

    The split depends on the number of ranks, so a resume needs the same number.
    """

    def __init__(self, batch_sampler: BatchSampler, sampler: DistributedSampler[Any]) -> None:
        self._batches, self._sampler = batch_sampler, sampler

    def batches(self, epoch: int, start: int) -> Iterator[tuple[int, list[SampleKey]]]:
        """This rank's batches; a position counts samples of this rank times the ranks."""
        self._sampler.set_epoch(epoch)
        ranks, rank = self._sampler.num_replicas, self._sampler.rank
        stop = 0
        for indices in self._batches:
            first, stop = stop, stop + len(indices) * ranks
            if first >= start:
                keys = [SampleKey(epoch, first + i * ranks + rank, int(index)) for i, index in enumerate(indices)]
                yield stop, keys

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


def shard(
    loader: DataLoader[Any], world: World, *, seed: int, device: torch.device, train: bool | None = None
) -> Loader:
    """Make a torch DataLoader right for this number of ranks.

    With torch's own sequential or shuffling sampler, `loader.batch_size` is taken as the global batch, so the script
    means the same on one rank and on many. A loader that already has a DistributedSampler keeps it, its per-rank batch
    too, and gets `set_epoch` called.

    Args:
        train: whether the loader keeps its position from one `for` to the next; None: if it shuffles.

    Raises:
        ConfigError: the loader has a sampler whose order cannot be taken over; the message names it.
    """
    if not isinstance(loader, DataLoader):
        raise ConfigError(
            f"rt.shard takes a torch DataLoader, not a {type(loader).__name__}; for a data set: rt.loader"
        )
    sampler, batches = loader.sampler, loader.batch_sampler
    if isinstance(loader.dataset, IterableDataset):
        raise ConfigError("the loader's data set is iterable; iterable data sets are not supported yet")
    if type(batches) is not BatchSampler:
        raise ConfigError(
            f"the loader has batch_sampler={type(batches).__name__}, which cannot be taken over; "
            "use rt.loader(dataset, ...)"
        )
    if isinstance(sampler, DistributedSampler):
        return _keep_sampler(loader, batches, sampler, world, seed, device, train)
    if not _is_plain(sampler):
        raise ConfigError(
            f"the loader has sampler={type(sampler).__name__}, whose order cannot be made the same "
            "on any number of ranks; use rt.loader(dataset, ...), or a DistributedSampler"
        )
    shuffle = isinstance(sampler, RandomSampler)
    train = shuffle if train is None else train
    length, batch = len(loader.dataset), batches.batch_size  # type: ignore[arg-type]
    if train and not batches.drop_last and length % batch:
        _LOG.info(
            "the last %d of %d samples of an epoch do not fill a batch of %d and are left out",
            length % batch,
            length,
            batch,
        )
    return build_loader(
        loader.dataset, world, global_batch_size=batch, seed=seed, device=device, train=train, shuffle=shuffle,
        drop_last=train or batches.drop_last, options=_options(loader),
    )  # fmt: skip


def _keep_sampler(
    loader: DataLoader[Any], batches: BatchSampler, sampler: DistributedSampler[Any], world: World, seed: int,
    device: torch.device, train: bool | None,
) -> Loader:  # fmt: skip
    if (sampler.num_replicas, sampler.rank) != (world.world_size, world.rank):
        raise ConfigError(
            f"the loader's DistributedSampler is for rank {sampler.rank} of {sampler.num_replicas}, "
            f"but this is rank {world.rank} of {world.world_size}; build it without num_replicas and rank, after init()"
        )
    train = bool(sampler.shuffle) if train is None else train
    surplus = sampler.total_size - len(sampler.dataset)  # type: ignore[arg-type]
    if not train and surplus > 0:
        _LOG.warning(
            "the DistributedSampler repeats %d samples to make the ranks even; use rt.loader(..., train=False)", surplus
        )
    source = DistributedSamplerSource(batches, sampler)
    return Loader(
        loader.dataset, source, seed=seed, train=train, device=device, sample_rng=None, options=_options(loader)
    )


def _is_plain(sampler: Any) -> bool:
    if type(sampler) is SequentialSampler:
        return True
    return (
        type(sampler) is RandomSampler and not sampler.replacement and sampler.num_samples == len(sampler.data_source)
    )


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
