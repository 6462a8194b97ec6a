"""Every way of choosing samples by index, as properties: over ranks, epochs and positions."""

from __future__ import annotations

import itertools
import json
import random
from collections import Counter, UserDict
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    RandomSampler,
    Sampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
    default_collate,
)

from dist_toolkit.data import Choices, Place, WorkerOptions, build_loader, shard
from dist_toolkit.data.arguments import check_options
from dist_toolkit.data.buckets import BucketedOrder
from dist_toolkit.data.fetch import KeyedTensors, draws_nothing, is_tensors
from dist_toolkit.data.listed import Listing, short
from dist_toolkit.data.loader import Loader
from dist_toolkit.data.order import GlobalOrder
from dist_toolkit.data.sampler import SampleKey
from dist_toolkit.data.weighted import WeightedOrder
from dist_toolkit.errors import ConfigError, StateMismatch
from dist_toolkit.world import World

CPU = torch.device("cpu")
KINDS = ["plain", "weights", "lengths", "batch_sampler", "sampler", "subset", "replacement"]


class Uneven(Sampler):
    """Batches of 1 to 5 indices, in an order drawn from Python's and torch's generators."""

    def __init__(self, length: int) -> None:
        self.length = length

    def sizes(self) -> list[int]:
        sizes = [1 + (3 * n) % 5 for n in range(self.length)]
        whole = [size for n, size in enumerate(sizes) if sum(sizes[: n + 1]) <= self.length]
        return [*whole, rest] if (rest := self.length - sum(whole)) else whole

    def __len__(self) -> int:
        return len(self.sizes())

    def __iter__(self) -> Any:
        order = torch.randperm(self.length).tolist()
        random.shuffle(order)
        first = 0
        for size in self.sizes():
            yield order[first : first + size]
            first += size


def place(rank: int, world_size: int, seed: int = 5) -> Place:
    return Place(World(rank, rank, world_size, world_size, launched=world_size > 1), CPU, seed)


def make(kind: str, length: int, batch: int, rank: int, world_size: int, train: bool) -> Loader:
    dataset, here = TensorDataset(torch.arange(length)), place(rank, world_size)
    adopted: dict[str, Any] = {
        "sampler": WeightedRandomSampler(torch.arange(length) + 1.0, length, replacement=False),
        "subset": SubsetRandomSampler(range(0, length, 2)),
        "replacement": RandomSampler(dataset, replacement=True, num_samples=length + 3),
    }
    if kind in adopted:
        return shard(DataLoader(dataset, batch_size=batch, sampler=adopted[kind]), here, train=train)
    chosen: dict[str, Any] = {
        "plain": {},
        "weights": {"weights": [1.0 + n % 3 for n in range(length)], "num_samples": length + 5},
        "lengths": {"lengths": lambda index: (index * 7) % 11},
        "batch_sampler": {"batch_sampler": Uneven(length)},
    }[kind]
    if kind == "batch_sampler":
        return build_loader(dataset, here, Choices(train=train, **chosen), {})
    return build_loader(dataset, here, Choices(batch, train=train, drop_last=False, **chosen), {})


def steps_of(loader: Loader) -> list[tuple[list[int], float]]:
    return [(batch[0].tolist(), loader.weight) for batch in loader]


cases = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(KINDS),
        "length": st.integers(2, 60),
        "per_rank": st.integers(1, 4),
        "world_size": st.integers(1, 4),
        "epoch": st.integers(0, 3),
    }
)


@given(case=cases)
def test_training_steps_are_the_same_samples_on_any_number_of_ranks(case: dict) -> None:
    """Each step's real samples are those of one process, and the weights make the ranks' means the samples' mean."""
    ranks, batch = case["world_size"], case["per_rank"] * case["world_size"]
    place_in_epoch = {"epoch": case["epoch"], "position": 0}

    def run(rank: int, world_size: int) -> list[tuple[list[int], float]]:
        loader = make(case["kind"], case["length"], batch, rank, world_size, True)
        loader.load_state_dict({**loader.state_dict(), **place_in_epoch})
        assert len(json.dumps(loader.state_dict())) < 200
        found = steps_of(loader)
        assert len(found) == len(loader)
        return found

    expected = run(0, 1)
    for (samples, _), *parts in zip(expected, *(run(rank, ranks) for rank in range(ranks)), strict=True):
        real = [n for mine, weight in parts for n in mine if weight]
        assert sorted(real) == sorted(samples)
        assert all(len(mine) >= 1 for mine, _ in parts), "every rank takes part in every step"
        assert all(weight == pytest.approx(len(mine) * ranks / len(samples)) for mine, weight in parts if weight)
        assert all(set(mine) <= set(samples) for mine, _ in parts)
        mean = sum(weight * np.mean(mine) for mine, weight in parts) / ranks
        assert mean == pytest.approx(np.mean(samples))


@given(case=cases, cut=st.integers(0, 40), data=st.data())
def test_resume_from_any_step_gives_the_rest(case: dict, cut: int, data: st.DataObject) -> None:
    """At another number of ranks, in a new process: the same steps as without the stop."""
    kind, length, batch, epoch = case["kind"], case["length"], case["per_rank"] * 12, case["epoch"]
    whole = make(kind, length, batch, 0, 1, True)
    whole.load_state_dict({**whole.state_dict(), "epoch": epoch})
    states, steps = [whole.state_dict()], []
    for (numbers,) in whole:
        steps.append(sorted(numbers.tolist()))
        states.append(whole.state_dict())
    cut = min(cut, len(steps) - 1)
    again = case["world_size"]
    parts = []
    for rank in range(again):
        loader = make(kind, length, batch, rank, again, True)
        loader.load_state_dict(states[cut])
        parts.append(steps_of(loader))
    rest = [sorted(n for mine, weight in step for n in mine if weight) for step in zip(*parts, strict=True)]
    assert rest == steps[cut:]


@given(case=cases)
def test_evaluation_gives_each_position_once(case: dict) -> None:
    ranks, batch = case["world_size"], case["per_rank"]
    once = [n for mine, _ in steps_of(make(case["kind"], case["length"], batch, 0, 1, False)) for n in mine]
    loaders = [make(case["kind"], case["length"], batch, rank, ranks, False) for rank in range(ranks)]
    shares = [steps_of(loader) for loader in loaders]
    assert Counter(n for share in shares for mine, _ in share for n in mine) == Counter(once)
    assert [len(share) for share in shares] == [len(loader) for loader in loaders]
    assert {weight for share in shares for _, weight in share} <= {1.0}
    if case["kind"] in ("plain", "lengths", "batch_sampler", "sampler"):
        assert sorted(once) == list(range(case["length"]))


@pytest.mark.parametrize("kind", KINDS)
def test_epochs_differ_and_states_of_another_order_are_refused(kind: str) -> None:
    loader = make(kind, 30, 6, 0, 1, True)
    assert steps_of(loader) != steps_of(loader)
    for other in KINDS:
        state = make(other, 30, 6, 0, 1, True).state_dict()
        if other == kind:
            loader.check_state_dict(state)
        elif {kind, other} != {"plain", "subset"}:  # told apart by their length alone
            with pytest.raises(StateMismatch, match="in the saved state"):
                loader.check_state_dict(state)


def test_a_state_of_the_first_format_still_loads() -> None:
    saved = {"epoch": 2, "position": 12, "length": 30, "shuffle": True, "seed": 5, "global_batch_size": 6}
    loader, whole = (make("plain", 30, 6, 0, 1, True) for _ in range(2))
    loader.load_state_dict(saved)
    whole.load_state_dict({**saved, "position": 0})
    assert steps_of(loader) == steps_of(whole)[2:]


# --- weighted draws -------------------------------------------------------------------------------------------------


def test_weighted_draws_follow_the_weights() -> None:
    """40,000 draws of five samples: chi-squared below the 0.1 % point for 3 degrees of freedom; a zero is not drawn."""
    weights = np.array([1.0, 0.0, 2.0, 3.0, 4.0])
    order = WeightedOrder(weights, 40_000, 3)
    counts = np.bincount(order.at(1, np.arange(40_000)), minlength=5)
    assert counts[1] == 0
    expected = weights / weights.sum() * 40_000
    wanted = expected > 0
    assert ((counts - expected)[wanted] ** 2 / expected[wanted]).sum() < 16.3


@given(
    weights=st.lists(st.floats(0, 1e6), min_size=1, max_size=50).filter(lambda found: sum(found) > 0),
    epoch=st.integers(0, 100), first=st.integers(0, 10**12),
)  # fmt: skip
def test_any_part_of_a_weighted_epoch_can_be_drawn_alone(weights: list[float], epoch: int, first: int) -> None:
    order = WeightedOrder(np.array(weights), 10**13, 0)
    together = order.at(epoch, np.arange(first, first + 20)).tolist()
    assert together == [int(order.at(epoch, np.array([first + n]))[0]) for n in range(20)]
    assert all(weights[index] > 0 for index in together)


def test_the_ends_of_the_draw_fall_on_samples_with_weight() -> None:
    order = WeightedOrder(np.array([0.0, 1.0, 0.0, 3.0, 0.0]), 10, 0)
    assert order.locate(np.array([0.0, 0.2499, 0.25, 0.9999, 1.0])).tolist() == [1, 1, 3, 3, 3]


def test_weights_may_be_a_tensor_of_any_type() -> None:
    listed = {"weights": [1.0, 2.0, 0.0, 4.0], "train": False}
    tensor = {"weights": torch.tensor([1, 2, 0, 4], dtype=torch.bfloat16), "train": False}
    found = [steps_of(build_loader(range(4), place(0, 1), Choices(2, **given), {"collate_fn": Both()}))  # type: ignore
             for given in (listed, tensor)]  # fmt: skip
    assert found[0] == found[1]


class Both:
    """A batch of one tensor, as TensorDataset has."""

    def __call__(self, samples: list[int]) -> list[torch.Tensor]:
        return [torch.tensor(samples)]


# --- buckets --------------------------------------------------------------------------------------------------------


@given(
    length=st.integers(1, 400), batch=st.integers(1, 6), shuffle=st.booleans(), epoch=st.integers(0, 5),
    seed=st.integers(0, 9),
)  # fmt: skip
def test_a_bucketed_epoch_is_a_permutation_in_batches_of_neighbouring_lengths(
    length: int, batch: int, shuffle: bool, epoch: int, seed: int
) -> None:
    lengths = np.random.RandomState(seed).randint(0, 100, length)
    plain = GlobalOrder(length, shuffle, seed)
    found = BucketedOrder(plain, lengths, batch).at(epoch, np.arange(length))
    assert sorted(found.tolist()) == list(range(length))
    window = 50 * batch
    for first in range(0, length, window):
        part = found[first : first + window]
        assert sorted(part) == sorted(plain.indices(epoch, first, first + len(part))), "a window keeps its samples"
        whole = lengths[part[: len(part) - len(part) % batch]].reshape(-1, batch)
        ranges = sorted((row.min(), row.max()) for row in whole)
        assert all(before[1] <= after[0] for before, after in itertools.pairwise(ranges))


def test_shares_of_a_bucketed_batch_are_balanced() -> None:
    """Ranks get the same number of tokens, to within one sample's difference, and not the short and the long ones."""
    lengths = np.random.RandomState(0).randint(1, 1000, 640)
    dataset = TensorDataset(torch.from_numpy(lengths))
    loaders = [build_loader(dataset, place(r, 4), Choices(64, lengths=lengths.tolist()), {}) for r in range(4)]
    for parts in zip(*loaders, strict=True):
        tokens = [int(mine.sum()) for (mine,) in parts]
        longest, shortest = (max(int(edge(mine)) for (mine,) in parts) for edge in (torch.max, torch.min))
        assert max(tokens) - min(tokens) <= longest - min(int(mine.min()) for (mine,) in parts)
        assert longest - shortest < 150, "batches of near-equal length"


# --- samplers that are read -----------------------------------------------------------------------------------------


class Lying(Sampler):
    def __init__(self, says: int, gives: list[Any]) -> None:
        self.says, self.gives = says, gives

    def __len__(self) -> int:
        return self.says

    def __iter__(self) -> Any:
        return iter(self.gives)


class Drifting(Sampler):
    """Draws from a generator that nothing resets."""

    def __init__(self) -> None:
        self.random = random.Random(0)

    def __len__(self) -> int:
        return 9

    def __iter__(self) -> Any:
        return iter(self.random.sample(range(9), 9))


@pytest.mark.parametrize(
    ("sampler", "words"),
    [
        (Lying(3, [[0], [1]]), "says that it gives 3 items, but gave 2 in epoch 0"),
        (Lying(1, [[0], [1]]), "says that it gives 1 items, but gave more than 1"),
        (Lying(2, [[0], [10]]), "gave index 10, but the data set has 10 samples"),
        (Lying(1, [["a"]]), "keys that are not indices"),
        (Lying(0, []), "gives no sample"),
        (iter([[1]]), "has no length"),
    ],
)  # fmt: skip
def test_a_sampler_that_lies_is_named(sampler: Any, words: str) -> None:
    dataset = TensorDataset(torch.arange(10))
    with pytest.raises(ConfigError, match=words):
        build_loader(dataset, place(0, 1), Choices(batch_sampler=sampler), {})


def test_a_lie_in_a_later_epoch_is_named_too() -> None:
    class Late(Lying):
        def set_epoch(self, epoch: int) -> None:
            self.gives = [[0], [1]][: 2 - epoch]

    loader = build_loader(TensorDataset(torch.arange(4)), place(0, 1), Choices(batch_sampler=Late(2, [])), {})
    assert len(list(loader)) == 2
    with pytest.raises(ConfigError, match="but gave 1 in epoch 1"):
        list(loader)


def test_an_order_that_cannot_be_repeated_is_said(caplog: pytest.LogCaptureFixture) -> None:
    Listing(Drifting(), 9, 0, None)
    assert "Drifting gives another order each time" in caplog.text


def test_a_torch_generator_of_the_sampler_is_seeded_by_the_epoch() -> None:
    """What a sampler with its own generator gives in epoch 2 does not depend on how often it was read before."""
    dataset = TensorDataset(torch.arange(20))

    def third_epoch(read_before: int) -> list[int]:
        sampler = RandomSampler(dataset, generator=torch.Generator().manual_seed(3))
        for _ in range(read_before):
            list(sampler)
        listing = Listing(BatchSampler(sampler, 4, False), 20, 0, None)
        listing.prepare(2)
        return listing.samples.tolist()

    assert third_epoch(0) == third_epoch(3)
    assert third_epoch(0) != list(range(20))


def test_reading_a_sampler_leaves_the_training_s_random_numbers_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    loader = make("batch_sampler", 20, 4, 0, 1, True)
    steps_of(loader)
    assert torch.equal(torch.rand(3), expected)


# --- fetching -------------------------------------------------------------------------------------------------------


class Many(TensorDataset):
    """Can fetch many at once, as a Hugging Face table can."""

    calls: list[list[int]]

    def __getitems__(self, indices: list[int]) -> list[Any]:
        self.calls.append(indices)
        return [self[index] for index in indices]


def test_a_data_set_that_fetches_many_at_once_is_asked_once_a_batch() -> None:
    dataset = Many(torch.arange(10))
    dataset.calls = []
    choices = Choices(4, train=False, sample_rng=False)
    assert [mine for mine, _ in steps_of(build_loader(dataset, place(0, 1), choices, {}))] == dataset.calls
    assert [len(call) for call in dataset.calls] == [4, 4, 2]


def test_a_hugging_face_table_is_fetched_in_batches_and_a_dict_of_tables_is_refused() -> None:
    datasets = pytest.importorskip("datasets")
    table = datasets.Dataset.from_dict({"n": list(range(10))})
    assert draws_nothing(table)
    assert not draws_nothing(table.with_transform(lambda rows: rows)), "a transform may draw"
    with pytest.raises(ConfigError, match="holds several data sets; pass one: train, test"):
        build_loader(datasets.DatasetDict(train=table, test=table), place(0, 1), Choices(2), {})


# --- input that makes no sense --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        ({"weights": [1.0] * 9}, r"weights has shape \(9,\), but the data set has 10"),
        ({"weights": [1.0] * 9 + [-1.0]}, r"weights\[9\]=-1.0"),
        ({"weights": [1.0] * 9 + [float("nan")]}, r"weights\[9\]=nan"),
        ({"weights": [0.0] * 10}, "add up to 0"),
        ({"weights": ["a"] * 10}, "weights must be numbers"),
        ({"lengths": [[1], [1, 2]]}, "lengths must be numbers"),
        ({"weights": [1e308] * 10}, "add up to inf"),
        ({"weights": [1.0] * 10, "lengths": [1] * 10}, "weights and lengths both say"),
        ({"weights": [1.0] * 10, "shuffle": False}, "weights draw at random"),
        ({"num_samples": 4}, "pass weights too"),
        ({"weights": [1.0] * 10, "num_samples": 0}, "num_samples=0"),
        ({"lengths": [1] * 11}, r"lengths has shape \(11,\)"),
        ({"lengths": [0.5] * 10}, "whole numbers of 0 or more, not float64s"),
        ({"lengths": lambda index: -1}, "whole numbers of 0 or more"),
        ({"batch_sampler": [[1]], "global_batch_size": 2}, "drop global_batch_size="),
        ({"batch_sampler": [[1]], "shuffle": True, "global_batch_size": None}, "drop shuffle="),
        ({"global_batch_size": None}, "global_batch_size=None is not a positive number"),
        ({"global_batch_size": 3}, "does not divide over 2 ranks"),
        ({"global_batch_size": 12}, "no whole batch of 12"),
    ],
)  # fmt: skip
def test_choices_that_contradict_are_refused(choices: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        build_loader(TensorDataset(torch.arange(10)), place(0, 2), Choices(**{"global_batch_size": 2, **choices}), {})


@pytest.mark.parametrize(
    ("loader", "words"),
    [
        (DataLoader(TensorDataset(torch.arange(4)), batch_size=None), "batch_size=None"),
        (DataLoader(TensorDataset(torch.empty(0)), batch_size=2), "the data set is empty"),
        (DataLoader(TensorDataset(torch.arange(4)), batch_size=2, sampler=Lying(4, [1, 2])), "says that it gives 4"),
    ],
)  # fmt: skip
def test_loaders_that_cannot_be_adopted_are_refused(loader: DataLoader, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        shard(loader, place(0, 1))


def test_adopted_plain_loaders_keep_the_tail() -> None:
    """drop_last=False is what the script says, and torch's default: its epoch has all samples."""
    dataset = TensorDataset(torch.arange(10))
    loader = shard(DataLoader(dataset, batch_size=4, shuffle=True), place(0, 2))
    steps = steps_of(loader)
    assert [weight for _, weight in steps] == [1.0, 1.0, 1.0]
    assert sum(len(mine) for mine, _ in steps) == 5
    assert len(steps_of(shard(DataLoader(dataset, 4, shuffle=True, drop_last=True), place(0, 2)))) == 2


def test_subsets_and_sequences_are_taken_over_as_they_are() -> None:
    dataset = Subset(TensorDataset(torch.arange(10)), [3, 1, 4, 1, 5])
    loader = shard(DataLoader(dataset, batch_size=2, sampler=SequentialSampler(dataset)), place(0, 1))
    assert [mine for mine, _ in steps_of(loader)] == [[3, 1], [4, 1], [5]]
    assert not loader.train


@given(
    st.lists(st.integers(0, 19), min_size=1, max_size=8),
    st.sampled_from([torch.float32, torch.int64, torch.bool]),
    st.booleans(),
)
def test_batches_of_plain_tensors_are_what_torch_collates(picked: list[int], dtype: torch.dtype, part: bool) -> None:
    data: Any = TensorDataset(torch.arange(60).reshape(20, 3).to(dtype), torch.arange(20))
    if part:
        data = Subset(Subset(data, [*range(19, -1, -1)]), [*range(20)])
    assert is_tensors(data)
    keys = [SampleKey(0, place, index) for place, index in enumerate(picked)]
    expected = default_collate([data[index] for index in picked])
    found = KeyedTensors(data).__getitems__(keys)
    assert type(found) is type(expected)
    assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(found, expected, strict=True))
    assert not is_tensors(list(range(3)))


# --- arguments ------------------------------------------------------------------------------------------------------


def test_whole_numbers_of_numpy_count_and_truth_values_do_not() -> None:
    dataset = TensorDataset(torch.arange(12))
    choices = Choices(np.int64(4), weights=[1.0] * 12, num_samples=np.int32(8), micro_batches=np.int64(2))  # type: ignore[arg-type]
    loader = build_loader(dataset, place(0, 1), choices, {})
    assert len(loader) == 2
    assert json.loads(json.dumps(loader.state_dict())) == loader.state_dict()
    assert all(type(value) in (int, bool) for value in loader.said.values())
    for wrong in (True, 0, -4, 4.0, "4", None):
        with pytest.raises(ConfigError, match=r"global_batch_size=.* is not a positive number of samples"):
            Choices(wrong)  # type: ignore[arg-type]
    for name in ("num_samples", "micro_batches"):
        with pytest.raises(ConfigError, match=f"{name}=True is not a positive number"):
            Choices(4, weights=[1.0], **{name: True})


@pytest.mark.parametrize(
    ("name", "instead"),
    [("batch_size", "global_batch_size="), ("sampler", "rt.shard"), ("generator", "seed"), ("bogus", "num_workers")],
)
def test_an_option_that_does_not_exist_is_named_with_what_to_use(name: str, instead: str) -> None:
    with pytest.raises(ConfigError, match=f"rt.loader has no {name}=; .*{instead}"):
        check_options([*WorkerOptions.__annotations__, name])


def test_a_dict_is_no_data_set() -> None:
    for data in ({0: "a", 1: "b"}, UserDict({"x": [1, 2], "y": [3, 4]})):
        with pytest.raises(ConfigError, match="ict is fetched from by name"):
            build_loader(data, place(0, 1), Choices(2), {})


@given(name=st.text(min_size=1, max_size=120))
def test_a_state_stays_small_whatever_a_sampler_is_called(name: str) -> None:
    kind = type("Own", (Sampler,), {"__len__": lambda self: 2, "__iter__": lambda self: iter([0, 1])})
    kind.__name__ = name if name.isprintable() else "X" * len(name)
    sampler = kind()
    sampler.num_replicas, sampler.rank = 1, 0
    loader = shard(DataLoader(TensorDataset(torch.arange(2)), sampler=sampler), place(0, 1))
    state = {**loader.state_dict(), "epoch": 10**9, "position": 10**12, "length": 10**12, "ranks": 10**6}
    assert len(json.dumps(state)) < 200
    assert short(name) != short(name + "x")
