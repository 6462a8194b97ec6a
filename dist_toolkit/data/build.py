"""From what a user asks for to a loader, or an error that says what to do; nothing else is decided elsewhere."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import IterableDataset

from dist_toolkit.data.arguments import positive
from dist_toolkit.data.buckets import BucketedOrder, checked_lengths
from dist_toolkit.data.feeds import MapFeed
from dist_toolkit.data.fetch import is_hugging_face
from dist_toolkit.data.iterable import StreamFeed, StreamSpec
from dist_toolkit.data.listed import ListedBatches, Listing
from dist_toolkit.data.loader import Loader
from dist_toolkit.data.order import GlobalOrder, Order
from dist_toolkit.data.sampler import BatchSource, Division, ShareSampler
from dist_toolkit.data.splitting import Sharded, choose_splitting, say_what_is_lost
from dist_toolkit.data.streams import Reading
from dist_toolkit.data.weighted import WeightedOrder, checked_weights
from dist_toolkit.data.workers import WorkerOptions
from dist_toolkit.errors import ConfigError
from dist_toolkit.process_group import Group
from dist_toolkit.world import World


@dataclass(frozen=True)
class Place:
    """Where a loader is to be: which rank of how many, which device, and the seed of the run.

    Attributes:
        group: for what ranks must agree on; None: this rank is alone, or a test looks at one rank's part.
    """

    world: World
    device: torch.device
    seed: int
    group: Group | None = None


@dataclass(frozen=True)
class Choices:
    """Which samples come, and in which batches. None: the default.

    Attributes:
        global_batch_size: samples of one step over all ranks; None where a batch sampler says.
        train: position kept from one `for` to the next, shuffled, incomplete last batch dropped; otherwise in order,
            each sample exactly once.
        shuffle, drop_last: override what `train` says. A training tail that is kept is divided as evenly as it can
            be, and `Loader.weight` says how much of it this rank has.
        sample_rng: seed the generators for each sample (see `KeyedDataset`); None: unless no code of the user's
            fetches it. False is for data without random numbers: with workers, they would not survive a resume.
        weights: one number of 0 or more a sample: it is drawn, with replacement, with probability weight / sum.
        num_samples: draws of an epoch, with `weights`; None: the length of the data set.
        lengths: one whole number a sample (or a function of the index): batches hold samples of near-equal length.
        batch_sampler: gives global batches of indices, the same on all ranks; see `Listing`.
        sharded: of an iterable data set; see `Sharded`.
        micro_batches: in how many `Engine.accumulate` will split each rank's part: a batch that they do not divide is
            refused here.
    """

    global_batch_size: int | None = None
    train: bool = True
    shuffle: bool | None = None
    drop_last: bool | None = None
    sample_rng: bool | None = None
    weights: Any = None
    num_samples: int | None = None
    lengths: Sequence[int] | Callable[[int], int] | None = None
    batch_sampler: Any = None
    sharded: Sharded = None
    micro_batches: int = 1

    def __post_init__(self) -> None:
        self._set("micro_batches", "")
        given = [name for name in ("weights", "lengths", "batch_sampler") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ConfigError(f"{' and '.join(given)} both say which samples make up a batch; drop one")
        if self.batch_sampler is not None:
            self._check_batch_sampler()
        else:
            self._set("global_batch_size", " of samples")
        if self.weights is not None and self.shuffle is False:
            raise ConfigError("weights draw at random, and shuffle=False asks for the data set's order; drop one")
        if self.num_samples is not None and self.weights is None:
            raise ConfigError("num_samples counts the draws of weights=...; pass weights too, or drop it")
        if self.num_samples is not None:
            self._set("num_samples", " of draws")

    @property
    def batch(self) -> int:
        """The global batch size; 1 where a batch sampler says."""
        return self.global_batch_size or 1

    def said(self) -> dict[str, Any]:
        """What a saved state does not hold, and all ranks must say the same of."""
        drop_last = self.train if self.drop_last is None else self.drop_last
        return {"train": self.train, "drop_last": drop_last, "micro_batches": self.micro_batches}

    def _set(self, name: str, unit: str) -> None:
        object.__setattr__(self, name, positive(name, getattr(self, name), unit))

    def _check_batch_sampler(self) -> None:
        for name in ("global_batch_size", "shuffle", "drop_last"):
            if getattr(self, name) is not None:
                raise ConfigError(f"a batch_sampler says which samples make up a batch; drop {name}=")


def build_loader(dataset: Any, place: Place, choices: Choices, options: WorkerOptions) -> Loader:
    """A loader over a map-style or an iterable data set. Local, but for reading a batch sampler.

    Args:
        options: for torch's DataLoader.

    Raises:
        ConfigError: the data set is neither, or empty, or a choice does not fit it or the number of ranks.
    """
    options = {"pin_memory": place.device.type == "cuda", **options}
    feed: MapFeed | StreamFeed
    if is_iterable(dataset):
        feed = _stream(dataset, place, choices, options)
    else:
        _check_map_style(dataset)
        source = _source(dataset, place, choices)
        feed = MapFeed(dataset, source, seed=place.seed, sample_rng=choices.sample_rng, options=options)
    said = {**choices.said(), "num_workers": options.get("num_workers", 0)}
    return Loader(feed, train=choices.train, device=place.device, said=said)


def on_every_rank(group: Group, make: Callable[[], Loader]) -> Loader:
    """`make()`, or the same failure on every rank. Collective.

    Raises:
        ConfigError: `make` failed on some rank, or the ranks made loaders of different orders or arguments.
    """
    loader, failure = None, None
    try:
        loader = make()
    except Exception as caught:
        failure = caught
    words = None if failure is None else str(failure)
    answers = group.all_gather_json([words, None if loader is None else {**loader.identity(), **loader.said}])
    if failure is not None:
        raise failure
    for rank, (theirs, _) in enumerate(answers):
        if theirs is not None:
            raise ConfigError(f"rank {rank} cannot make its loader: {theirs}")
    assert loader is not None
    _check_same([facts for _, facts in answers])
    return loader


def is_iterable(dataset: Any) -> bool:
    """Whether the data set is read from its start, and not by index."""
    if isinstance(dataset, IterableDataset):
        return True
    return is_hugging_face(dataset) and not hasattr(dataset, "__getitem__")


def source_of(order: Order, place: Place, choices: Choices) -> ShareSampler:
    """The shares of the global batches of an order.

    Raises:
        ConfigError: the batch does not divide over the ranks, or no batch is whole.
    """
    drop_last = choices.train if choices.drop_last is None else choices.drop_last
    check_divides(choices, place.world.world_size)
    if choices.train and drop_last and order.length < choices.batch:
        raise ConfigError(
            f"an epoch of {order.length} samples has no whole batch of {choices.batch}; "
            f"use global_batch_size <= {order.length}, or drop_last=False"
        )
    return ShareSampler(order, choices.batch, _division(place, choices), drop_last)


def check_divides(choices: Choices, world_size: int) -> None:
    """Refuse a training batch of which ranks or micro-batches would always have unequal parts: ConfigError."""
    batch, parts = choices.batch, world_size * choices.micro_batches
    if choices.train and choices.batch_sampler is None and batch % parts:
        nearest = max(1, round(batch / parts)) * parts
        over = f"{world_size} ranks" + (
            f" x {choices.micro_batches} micro-batches" if choices.micro_batches > 1 else ""
        )
        raise ConfigError(
            f"global_batch_size={batch} does not divide over {over}, so samples weigh unequally; "
            f"use {nearest}, or another number of {'ranks' if choices.micro_batches == 1 else 'either'}"
        )


def _source(dataset: Any, place: Place, choices: Choices) -> BatchSource:
    count, seed = len(dataset), place.seed
    if choices.batch_sampler is not None:
        listing = Listing(choices.batch_sampler, count, seed, place.group)
        return ListedBatches(listing, _division(place, choices), seed)
    return source_of(_order(count, seed, choices), place, choices)


def _order(count: int, seed: int, choices: Choices) -> Order:
    if choices.weights is not None:
        return WeightedOrder(checked_weights(choices.weights, count), choices.num_samples or count, seed)
    order = GlobalOrder(count, choices.train if choices.shuffle is None else choices.shuffle, seed)
    if choices.lengths is not None:
        return BucketedOrder(order, checked_lengths(choices.lengths, count), choices.batch)
    return order


def _division(place: Place, choices: Choices) -> Division:
    """Sorted batches are dealt out, so that no rank gets all the long samples."""
    world = place.world
    return Division(world.rank, world.world_size, deal=choices.lengths is not None, fill=choices.train)


def _stream(dataset: Any, place: Place, choices: Choices, options: WorkerOptions) -> StreamFeed:
    name, world = type(dataset).__name__, place.world
    for chosen in ("weights", "lengths", "batch_sampler"):
        if getattr(choices, chosen) is not None:
            raise ConfigError(f"{chosen}= needs samples that can be fetched by index, and {name} is iterable")
    if choices.shuffle:
        raise ConfigError(
            f"{name} is iterable, so its order is its own; drop shuffle=True and shuffle in the data set "
            "(Hugging Face: dataset.shuffle(seed=..., buffer_size=...))"
        )
    check_divides(choices, world.world_size)
    splitting = choose_splitting(dataset, choices.sharded, world.world_size)
    if world.is_main:
        say_what_is_lost(dataset, splitting, choices.train, world.world_size * max(1, options.get("num_workers", 0)))
    drop_last = choices.train and splitting == "items" if choices.drop_last is None else choices.drop_last
    reading = Reading(
        splitting, world.rank, world.world_size, place.seed, choices.train, choices.sample_rng is not False
    )
    spec = StreamSpec(choices.batch, choices.train, drop_last, choices.sharded is False)
    return StreamFeed(dataset, reading, spec, place.group, options)


def _check_map_style(dataset: Any) -> None:
    if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
        raise ConfigError(
            f"{type(dataset).__name__} is neither a map-style data set (with __len__ and __getitem__) "
            "nor a torch.utils.data.IterableDataset"
        )
    if is_hugging_face(dataset) and isinstance(dataset, dict):
        raise ConfigError(f"a {type(dataset).__name__} holds several data sets; pass one: {', '.join(dataset)}")
    if isinstance(dataset, (dict, UserDict)):
        raise ConfigError(f"a {type(dataset).__name__} is fetched from by name, not by index; pass list(data.values())")
    if len(dataset) < 1:
        raise ConfigError("the data set is empty")


def _check_same(facts: Sequence[dict[str, Any]]) -> None:
    for name in {name: None for each in facts for name in each}:
        found = [each.get(name) for each in facts]
        if any(value != found[0] for value in found):
            listed = ", ".join(f"rank {rank}: {value}" for rank, value in enumerate(found))
            raise ConfigError(
                f"the ranks' loaders differ in their {name} ({listed}); give every rank the same data and arguments"
            )
