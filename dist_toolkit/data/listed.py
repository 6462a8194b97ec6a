"""Orders that are read from a sampler of the user's: listed once an epoch, checked, and compared over ranks.

The sampler is read with Python's, NumPy's and torch's generators seeded by (seed, epoch), and a torch generator of its
own is seeded by the epoch too. So a sampler that draws from those gives the same order on every rank, and again after
a resume. What it listed takes 8 bytes a sample.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import torch

from dist_toolkit.data.fetch import own_generators, seed_cpu
from dist_toolkit.data.order import Indices
from dist_toolkit.data.sampler import Division, SampleKey, Share
from dist_toolkit.data.weighted import digest
from dist_toolkit.errors import ConfigError
from dist_toolkit.process_group import Group
from dist_toolkit.seeding import derive

_LOG = logging.getLogger("dist_toolkit")


class Listing:
    """A sampler (of indices, or of batches of them), epoch by epoch.

    Attributes:
        name: the sampler's class.
        order: a digest of epoch 0.
        samples: the indices of the prepared epoch, one after the other.
        stops: the position after each batch of it (after each index, where the sampler gives single ones).
    """

    samples: Indices
    stops: Indices

    def __init__(self, sampler: Any, count: int, seed: int, group: Group | None, per_rank: bool = False) -> None:
        self.name = type(sampler).__name__
        self._sampler, self._count, self._seed = sampler, count, seed
        self._group, self._per_rank = group, per_rank
        self._generators = [(g, g.initial_seed()) for part in parts_of(sampler) if (g := _generator(part)) is not None]
        self._epoch: int | None = None
        self._agreed = False
        self.read(0)
        if not len(self.samples):
            raise ConfigError(f"{self.name} gives no sample: there is nothing to load")
        self.order = self._digest()
        self.read(0)
        if self.order != self._digest():
            _LOG.warning(
                "%s gives another order each time it is read, with the same epoch and seed: after a resume the order "
                "of the samples is not the one that the run would have had; give it set_epoch(), or draw from torch",
                self.name,
            )

    def prepare(self, epoch: int) -> None:
        """List `epoch`, unless it is listed. Collective.

        Raises:
            ConfigError: on every rank, if any rank's sampler failed, lied about its length or differs.
        """
        if epoch == self._epoch and self._agreed:
            return
        words, failure = None, None
        try:
            if epoch != self._epoch:
                self.read(epoch)
        except Exception as caught:
            failure, words = caught, str(caught)
        said = None if words is not None else (len(self.stops) if self._per_rank else self._digest())
        answers = [[words, said]] if self._group is None else self._group.all_gather_json([words, said])
        if failure is not None:
            raise failure
        for rank, (theirs, _) in enumerate(answers):
            if theirs is not None:
                raise ConfigError(f"rank {rank}: {theirs}")
        found = [answer for _, answer in answers]
        if any(answer != found[0] for answer in found):
            what = f"number of batches: {found}" if self._per_rank else "order"
            raise ConfigError(
                f"{self.name} does not give every rank the same {what}; draw from a generator that is seeded "
                "the same on all ranks, or with the epoch (set_epoch)"
            )
        self._agreed = True

    def read(self, epoch: int) -> None:
        """List `epoch`. Local.

        Raises:
            ConfigError: no length, another number of items than the length, or an index that is not in the data.
        """
        self._epoch, self._agreed = None, False
        for part in parts_of(self._sampler):
            if callable(getattr(part, "set_epoch", None)):
                part.set_epoch(epoch)
        for generator, seed in self._generators:
            generator.manual_seed(derive(seed, "sampler", epoch))
        if not hasattr(self._sampler, "__len__"):
            raise ConfigError(f"{self.name} has no length; give it __len__: what it gives in an epoch")
        length = len(self._sampler)
        with own_generators():
            seed_cpu(derive(self._seed, "sampler", epoch))
            items = list(islice(self._sampler, length + 1))
        if len(items) != length:
            given = f"more than {length}" if len(items) > length else str(len(items))
            raise ConfigError(f"{self.name} says that it gives {length} items, but gave {given} in epoch {epoch}")
        self._keep(items)
        self._epoch = epoch

    def _keep(self, items: list[Any]) -> None:
        batches = [item if isinstance(item, (list, tuple)) else [item] for item in items]
        try:
            flat = np.array([index for batch in batches for index in batch])
            whole = flat.size == 0 or (flat.ndim == 1 and flat.dtype.kind in "iu")
        except (TypeError, ValueError):
            whole = False
        if not whole:
            raise ConfigError(f"{self.name} gives keys that are not indices; a loader counts samples from 0")
        if flat.size and not 0 <= flat.min() <= flat.max() < self._count:
            wrong = flat[(flat < 0) | (flat >= self._count)][0]
            raise ConfigError(f"{self.name} gave index {wrong}, but the data set has {self._count} samples")
        self.samples = flat.astype(np.int64)
        self.stops = np.cumsum([len(batch) for batch in batches], dtype=np.int64)

    def _digest(self) -> str:
        return digest(np.concatenate([self.samples, self.stops]))


class ListedOrder:
    """The order that a sampler of single indices gives.

    Attributes:
        length: indices in an epoch.
    """

    def __init__(self, listing: Listing, seed: int) -> None:
        self._listing, self._seed = listing, seed
        self.length = len(listing.samples)

    def prepare(self, epoch: int) -> None:
        """List the epoch. Collective; raises ConfigError, see `Listing.prepare`, or where the length has changed."""
        self._listing.prepare(epoch)
        found = len(self._listing.samples)
        if found != self.length:
            raise ConfigError(f"{self._listing.name} gave {found} samples in epoch {epoch}, {self.length} in epoch 0")

    def at(self, epoch: int, positions: Indices) -> Indices:
        """Dataset indices at these positions of the prepared epoch; same shape."""
        return self._listing.samples[positions]

    def identity(self) -> dict[str, int | bool | str]:
        """Length, seed, and a digest of epoch 0."""
        return {"length": self.length, "seed": self._seed, "order": self._listing.order}


class ListedBatches:
    """Global batches that a batch sampler gives; each is divided over the ranks."""

    def __init__(self, listing: Listing, division: Division, seed: int) -> None:
        self._listing, self._division, self._seed = listing, division, seed

    def prepare(self, epoch: int) -> None:
        """List the epoch. Collective; raises ConfigError, see `Listing.prepare`."""
        self._listing.prepare(epoch)

    def batches(self, epoch: int, start: int) -> Iterator[Share]:
        """This rank's shares of the batches from position `start` on; empty batches are left out."""
        begin = 0
        for stop in self._listing.stops.tolist():
            if begin >= start and stop > begin:
                mine, weight = self._division.positions(begin, stop)
                samples = self._listing.samples[mine].tolist()
                keys = [SampleKey(epoch, *pair) for pair in zip(mine.tolist(), samples, strict=True)]
                yield Share(stop, keys, weight)
            begin = stop

    def end(self, epoch: int) -> int:
        """Samples in the prepared epoch."""
        return len(self._listing.samples)

    def batches_per_epoch(self) -> int:
        """Batches that this rank gets of the epoch that was listed last."""
        sizes = np.diff(self._listing.stops, prepend=0)
        return sum(self._division.has_share(size) for size in sizes.tolist())

    def identity(self) -> dict[str, int | bool | str]:
        """Seed, and a digest of epoch 0."""
        return {"length": len(self._listing.samples), "seed": self._seed, "order": self._listing.order}


class OwnBatches:
    """Batches of a sampler that divides the data over the ranks itself; set_epoch is called for it.

    The division depends on the number of ranks, so a resume needs the same number.
    """

    def __init__(self, listing: Listing, rank: int, world_size: int, group: Group | None = None) -> None:
        self._listing, self._rank, self._ranks, self._group = listing, rank, world_size, group
        self._weighed: int | None = None
        self._weights: list[float] = []

    def prepare(self, epoch: int) -> None:
        """List the epoch, and add up how many samples each step has over all ranks. Collective.

        Raises:
            ConfigError: on every rank, where the ranks get different numbers of batches, or one an empty batch.
        """
        if epoch == self._weighed:
            return
        self._listing.prepare(epoch)
        sizes = torch.from_numpy(np.diff(self._listing.stops, prepend=0))
        alone = self._group is None or self._group.world.world_size == 1
        facts = torch.stack([sizes, (sizes == 0).long()])
        total, empty = facts * self._ranks if alone or self._group is None else self._group.all_reduce(facts)
        if empty.any():
            number = int(empty.nonzero()[0])
            raise ConfigError(
                f"{self._listing.name} gives a rank no sample in batch {number} of epoch {epoch}; "
                "leave empty batches out, on every rank"
            )
        self._weights = (sizes.double() * self._ranks / total).tolist()
        self._weighed = epoch

    def batches(self, epoch: int, start: int) -> Iterator[Share]:
        """This rank's batches from number `start` on: a position counts batches."""
        begin = 0
        for number, stop in enumerate(self._listing.stops.tolist(), 1):
            if number > start:
                positions = range(begin * self._ranks + self._rank, stop * self._ranks, self._ranks)
                samples = self._listing.samples[begin:stop].tolist()
                keys = [SampleKey(epoch, *pair) for pair in zip(positions, samples, strict=True)]
                yield Share(number, keys, self._weights[number - 1])
            begin = stop

    def end(self, epoch: int) -> int:
        """Batches in the prepared epoch."""
        return len(self._listing.stops)

    def batches_per_epoch(self) -> int:
        """Batches that this rank gets of the epoch that was listed last."""
        return len(self._listing.stops)

    def identity(self) -> dict[str, int | bool | str]:
        """The number of ranks among them; not the order, of which each rank has a part."""
        return {"length": len(self._listing.stops), "sampler": short(self._listing.name), "ranks": self._ranks}


def parts_of(sampler: Any) -> list[Any]:
    """The sampler, and those inside it."""
    found, inner = [sampler], sampler
    while (inner := getattr(inner, "sampler", None) or getattr(inner, "batch_sampler", None)) is not None:
        found.append(inner)
    return found


def short(name: str) -> str:
    """`name`, or where it takes more than 50 bytes as JSON, its beginning and a digest of it."""
    if len(json.dumps(name)) <= 50:
        return name
    return (
        f"{name[:30].encode('ascii', 'replace').decode()}-{hashlib.blake2b(name.encode(), digest_size=6).hexdigest()}"
    )


def _generator(part: Any) -> torch.Generator | None:
    generator = getattr(part, "generator", None)
    return generator if isinstance(generator, torch.Generator) else None
