"""The batches of a Trainer's loader, with an order and random numbers that belong to the batch.

Accelerate fetches a batch ahead, workers several; so what a batch drew from the generators of the training (masking,
augmentation) could not be drawn again after a resume, which fetches less. A batch's own numbers can.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch.utils.data import IterableDataset, get_worker_info

from dist_toolkit.data.fetch import Samples, SeededCollate, own_generators, seed_cpu
from dist_toolkit.seeding import derive


class Indices(list[int]):
    """The indices of a batch, and the seed that belongs to it."""

    seed: int = 0


class NumberedBatches:
    """A batch sampler whose order is drawn from (seed, epoch), and whose batches have seeds of their own.

    All else of the sampler that it wraps, such as `batch_size`, is there too.
    """

    def __init__(self, inner: Any, seed: int, rank: int) -> None:
        self._inner, self._seed, self._rank, self._epoch = inner, seed, rank, 0

    def __iter__(self) -> Iterator[Indices]:
        epoch, batches = self._epoch, iter(self._inner)
        number = 0
        while True:
            with own_generators():  # samplers draw the order of an epoch when they are asked for the first index
                seed_cpu(derive(self._seed, "order", epoch, number))
                found = next(batches, None)
            if found is None:
                return
            batch = Indices(found)
            batch.seed = derive(self._seed, "batch", epoch, number, self._rank)
            yield batch
            number += 1

    def __len__(self) -> int:
        return len(self._inner)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._inner, name)

    def set_epoch(self, epoch: int) -> None:
        """Tell every sampler within, however deep: Accelerate's own search ends two levels down."""
        self._epoch = epoch
        found = self._inner
        while found is not None:
            if hasattr(found, "set_epoch"):
                found.set_epoch(epoch)
            found = getattr(found, "batch_sampler", None) or getattr(found, "sampler", None)


class SeededFetch:
    """A data set that is addressed by `Indices`, and fetches a batch with the numbers that belong to it."""

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset

    def __getitems__(self, indices: Indices) -> Samples:
        """The samples of a batch; torch's loader calls this once a batch."""
        if get_worker_info() is not None:
            return self._fetch(indices)
        with own_generators():
            return self._fetch(indices)

    def __getitem__(self, index: int) -> Any:
        return self._dataset[index]

    def __len__(self) -> int:
        return len(self._dataset)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._dataset, name)

    def _fetch(self, indices: Indices) -> Samples:
        seed_cpu(indices.seed)
        many = getattr(self._dataset, "__getitems__", None)
        found = many([*indices]) if callable(many) else [self._dataset[index] for index in indices]
        samples = Samples(found)
        samples.seed = derive(indices.seed, "collate")
        return samples


def give_batches_their_numbers(loader: Any, seed: int, rank: int) -> bool:
    """Change a loader that Accelerate has prepared and nobody has read yet; whether it could be changed.

    It cannot where the data set is read as a stream, or another program hands the batches out.
    """
    inner = getattr(loader, "base_dataloader", loader)
    batches = getattr(inner, "batch_sampler", None)
    streamed = isinstance(inner.dataset, IterableDataset) or not hasattr(inner.dataset, "__getitem__")
    if batches is None or streamed or type(loader).__name__ == "DataLoaderDispatcher":
        return False
    # torch's loader refuses these once it is made, for the sake of what it has derived from them: nothing, here
    vars(inner)["batch_sampler"] = NumberedBatches(batches, seed, rank)
    vars(inner)["dataset"] = SeededFetch(inner.dataset)
    inner.collate_fn = SeededCollate(inner.collate_fn)
    return True
