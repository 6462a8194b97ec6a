"""What runs where a sample is fetched: in the main process, or in a loader worker."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, Subset, TensorDataset, get_worker_info

from dist_toolkit.data.sampler import SampleKey
from dist_toolkit.seeding import derive

Generators = tuple[Any, Any, torch.Tensor]
"""The states of Python's, NumPy's and torch's CPU generators, as they give them: twice as fast to take and to put
back as tensors, and never written to a file."""


class Samples(list[Any]):
    """The samples of a batch, and the seed that belongs to the batch."""

    seed: int = 0


class KeyedDataset(Dataset[Any]):
    """A map-style data set addressed by SampleKey, with random numbers that belong to the sample.

    Before a sample is fetched, Python's, NumPy's and torch's generators are seeded from (seed, epoch, position). So an
    augmentation is the same on any rank, in any worker, with any number of them, and after a resume; and it leaves the
    training's own random numbers alone. `sample_rng=False` leaves this out (about 15 microseconds a sample).
    """

    def __init__(self, dataset: Any, seed: int, sample_rng: bool) -> None:
        self.dataset, self.seed, self.sample_rng = dataset, seed, sample_rng

    def __getitems__(self, keys: Sequence[SampleKey]) -> Samples:
        """The samples, in order; torch's loader calls this once a batch."""
        if not self.sample_rng:
            samples = Samples(self._plain([key.sample for key in keys]))
        elif get_worker_info() is not None:
            samples = Samples(self._seeded(key) for key in keys)
        else:
            with own_generators():
                samples = Samples(self._seeded(key) for key in keys)
        samples.seed = derive(self.seed, "batch", keys[0].epoch, keys[0].position)
        return samples

    def __getitem__(self, key: SampleKey) -> Any:
        return self.__getitems__([key])[0]

    def _plain(self, indices: list[int]) -> list[Any]:
        fetch_many = getattr(self.dataset, "__getitems__", None)
        if callable(fetch_many):
            return list(fetch_many(indices))
        return [self.dataset[index] for index in indices]

    def _seeded(self, key: SampleKey) -> Any:
        seed_cpu(derive(self.seed, "sample", key.epoch, key.position))
        return self.dataset[key.sample]


class KeyedTensors(Dataset[Any]):
    """A TensorDataset (or a Subset of one) addressed by SampleKey: a batch is taken from each tensor in one go.

    What torch's own collate function would make of its samples, in a fourth of the time. For `as_it_is` to collate.
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __getitems__(self, keys: Sequence[SampleKey]) -> list[torch.Tensor]:
        """One tensor a field, samples along dimension 0."""
        indices, data = [key.sample for key in keys], self.dataset
        while type(data) is Subset:
            indices, data = [data.indices[index] for index in indices], data.dataset
        chosen = torch.tensor(indices)
        return [tensor[chosen] for tensor in data.tensors]

    def __getitem__(self, key: SampleKey) -> Any:
        return self.__getitems__([key])


def is_tensors(dataset: Any) -> bool:
    """Whether `KeyedTensors` can fetch from `dataset`: a TensorDataset of the CPU, or a Subset of one."""
    while type(dataset) is Subset:
        dataset = dataset.dataset
    return type(dataset) is TensorDataset and all(tensor.device.type == "cpu" for tensor in dataset.tensors)


def as_it_is(batch: Any) -> Any:
    """A batch that needs no collating."""
    return batch


class SeededCollate:
    """A user's collate function, with random numbers that belong to the batch: masking and mixing resume too."""

    def __init__(self, collate: Callable[[list[Any]], Any]) -> None:
        self.collate = collate

    def __call__(self, samples: list[Any]) -> Any:
        """Collate one batch."""
        seed = samples.seed if isinstance(samples, Samples) else 0
        if get_worker_info() is not None:
            seed_cpu(seed)
            return self.collate(samples)
        with own_generators():
            seed_cpu(seed)
            return self.collate(samples)


def seed_cpu(seed: int) -> None:
    """Seed Python's, NumPy's and torch's CPU generators."""
    random.seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)
    torch.default_generator.manual_seed(seed)


def take_generators() -> Generators:
    """The states of the CPU generators."""
    return random.getstate(), np.random.get_state(), torch.get_rng_state()


def put_generators(states: Generators) -> None:
    """Put back what `take_generators` gave."""
    random.setstate(states[0])
    np.random.set_state(states[1])
    torch.set_rng_state(states[2])


@contextmanager
def own_generators() -> Iterator[None]:
    """Leave the CPU generators as they were found, whatever the body draws."""
    states = take_generators()
    try:
        yield
    finally:
        put_generators(states)


def draws_nothing(dataset: Any) -> bool:
    """Whether fetching from `dataset` runs no code of the user's that could draw random numbers."""
    while type(dataset) is Subset:
        dataset = dataset.dataset
    if is_hugging_face(dataset):
        return bool(getattr(dataset, "format", {}).get("type") != "custom")  # custom: set_transform, the user's code
    return type(dataset) is TensorDataset


def is_hugging_face(dataset: Any) -> bool:
    """Whether `dataset` is one of the package `datasets`, found out without importing it."""
    return type(dataset).__module__.partition(".")[0] == "datasets"
