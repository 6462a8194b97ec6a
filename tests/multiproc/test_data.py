"""Loaders on real ranks and real workers: statements 4 to 12 of what the runtime must make true.

Each start of ranks makes many checks; what a rank returns is compared with one process, or with the data themselves.
"""

from __future__ import annotations

import importlib
import io
import itertools
import json
import logging
import math
import random
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    Sampler,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
    get_worker_info,
)

import dist_toolkit as dtk
from dist_toolkit.errors import ConfigError, StateMismatch
from dist_toolkit.testing import run_ranks

pytestmark = pytest.mark.multiproc

LENGTH = 29


class Noisy(Dataset):
    """(number, a random number), by index."""

    def __len__(self) -> int:
        return LENGTH

    def __getitem__(self, index: int) -> tuple[int, float]:
        return index, random.random() + np.random.rand() + torch.rand(1).item()


class Stream(IterableDataset):
    """(number, a random number), in order; `by_worker`: divided as torch's documentation shows it."""

    def __init__(self, length: int = LENGTH, by_worker: bool = False) -> None:
        self.length, self.by_worker = length, by_worker

    def __iter__(self) -> Any:
        info = get_worker_info() if self.by_worker else None
        first, step = (0, 1) if info is None else (info.id, info.num_workers)
        for n in range(first, self.length, step):
            yield n, random.random() + torch.rand(1).item()


class Sharded(IterableDataset):
    """Shards of different sizes, behind `shard(index=, count=)`."""

    def __init__(self, sizes: tuple[int, ...], chosen: tuple[int, ...] | None = None) -> None:
        self.sizes, self.chosen = sizes, tuple(range(len(sizes))) if chosen is None else chosen

    def shard(self, index: int, count: int) -> Sharded:
        return Sharded(self.sizes, self.chosen[index::count])

    def __iter__(self) -> Any:
        for number in self.chosen:
            yield from ((100 * number + n, 0.0) for n in range(self.sizes[number]))


class ByRank(IterableDataset):
    """Looks at rank and worker itself."""

    def __init__(self, rank: int, ranks: int) -> None:
        self.rank, self.ranks = rank, ranks

    def __iter__(self) -> Any:
        info = get_worker_info()
        worker, workers = (0, 1) if info is None else (info.id, info.num_workers)
        return iter((n, 0.0) for n in range(self.rank + self.ranks * worker, LENGTH, self.ranks * workers))


class Pairs(Sampler):
    """Batches of a user's making: of 5 indices, then of 1, 5, 1, ..., in a random order."""

    def __len__(self) -> int:
        return len(list(self.bounds()))

    def bounds(self) -> Any:
        sizes = itertools.cycle((5, 1))
        first = 0
        while first < LENGTH:
            size = next(sizes)
            yield first, min(first + size, LENGTH)
            first += size

    def __iter__(self) -> Any:
        order = torch.randperm(LENGTH).tolist()
        return (order[first:stop] for first, stop in self.bounds())


def mix(samples: list[Any]) -> dict[str, torch.Tensor]:
    """A collate function of the user's."""
    ids, noise = zip(*samples, strict=True)
    return {"ids": torch.tensor(ids), "noise": torch.tensor(noise, dtype=torch.float64)}


def read(sample: dict[str, torch.Tensor]) -> list[tuple[int, float]]:
    return list(zip(sample["ids"].tolist(), sample["noise"].tolist(), strict=True))


def gathered(rt: Any, mine: list[Any]) -> list[Any]:
    """Step by step, what all ranks had."""
    return [list(itertools.chain(*parts)) for parts in zip(*rt.group.all_gather_json(mine), strict=True)]


def loaders(rt: Any, workers: int, persistent: bool = False) -> dict[str, Any]:
    """A training loader of every kind that gives the same order on any number of ranks."""
    options: dict[str, Any] = {"collate_fn": mix, "num_workers": workers, "persistent_workers": persistent}
    make = partial(rt.loader, **options)
    weights = [n % 4 for n in range(LENGTH)]
    adopt = lambda **given: rt.shard(DataLoader(Noisy(), **given, **options))  # noqa: E731
    return {
        "plain": make(Noisy(), global_batch_size=6),
        "tail": make(Noisy(), global_batch_size=6, drop_last=False),
        "weights": make(Noisy(), global_batch_size=6, weights=weights, num_samples=31, drop_last=False),
        "lengths": make(Noisy(), global_batch_size=6, lengths=lambda index: index % 7),
        "batch_sampler": make(Noisy(), batch_sampler=Pairs()),
        "stream": make(Stream(), global_batch_size=6, drop_last=False),
        "stream by worker": make(Stream(by_worker=True), global_batch_size=6, drop_last=False),
        "weighted sampler": adopt(batch_size=6, sampler=WeightedRandomSampler(weights, 20)),
        "subset": adopt(batch_size=6, sampler=SubsetRandomSampler(range(5, 25))),
        "replacement": adopt(batch_size=6, sampler=RandomSampler(range(LENGTH), replacement=True)),
        "custom batches": adopt(batch_sampler=Pairs()),
        "custom sampler": adopt(batch_size=6, sampler=WeightedRandomSampler([1.0] * LENGTH, 21, replacement=False)),
    }


def two_epochs(workers: int, persistent: bool, kinds: list[str] | None = None) -> dict[str, Any]:
    """Two epochs of every kind: per step (number, noise) of all real samples; then the same from the middle."""
    found: dict[str, Any] = {}
    with dtk.init(seed=5) as rt:
        for kind, loader in loaders(rt, workers, persistent).items():
            if kinds is not None and kind not in kinds:
                continue
            steps, weights, middle = [], [], None
            for _ in range(2):
                for batch in loader:
                    steps.append(read(batch) if loader.weight else [])
                    weights.append((loader.weight, len(batch["ids"])))
                    if len(steps) == 3:
                        middle = json.loads(json.dumps(loader.state_dict()))  # workers have fetched more by now
            assert len(json.dumps(middle)) < 200
            shares = rt.group.all_gather_json(weights)
            for step in zip(*shares, strict=True):
                real = sum(size for weight, size in step if weight)
                for weight, size in step:
                    assert weight in (0.0, size * len(step) / real)
                assert all(size >= 1 for _, size in step), "every rank takes part in every step"
            found[kind] = {"steps": [sorted(step) for step in gathered(rt, steps)], "middle": middle}
            loader.close()
    return found


def after(states: dict[str, Any], workers: int, count: int) -> dict[str, Any]:
    """`count` more steps of every kind, from saved states."""
    found = {}
    with dtk.init(seed=5) as rt:
        for kind, loader in loaders(rt, workers).items():
            if kind not in states:
                continue
            loader.load_state_dict(states[kind])
            steps: list[Any] = []
            while len(steps) < count:
                for batch in loader:
                    steps.append(read(batch) if loader.weight else [])
                    if len(steps) == count:
                        break
            found[kind] = [sorted(step) for step in gathered(rt, steps)]
            loader.close()
    return found


@pytest.fixture(scope="module")
def alone() -> dict[str, Any]:
    """Two epochs on one rank without workers: what every other way must give."""
    return run_ranks(two_epochs, 1, 0, False)[0]


def test_one_rank_sees_what_it_should(alone: dict[str, Any]) -> None:
    for kind, found in alone.items():
        steps = [[n for n, _ in step] for step in found["steps"]]
        half = len(steps) // 2
        first, second = steps[:half], steps[half:]
        both = [sorted(itertools.chain(*epoch)) for epoch in (first, second)]
        if kind in ("tail", "batch_sampler", "stream", "stream by worker", "custom batches"):
            assert both == [list(range(LENGTH))] * 2
        if kind not in ("stream", "stream by worker"):
            assert first != second, "statement 11: epochs differ with no set_epoch"
        if kind == "subset":
            assert both == [list(range(5, 25))] * 2
        if "weight" in kind:
            assert all(n % 4 for n in both[0]), "weight 0 is never drawn"


@pytest.mark.parametrize(("ranks", "workers", "persistent"), [(2, 0, False), (3, 2, True)])
def test_steps_are_the_same_on_any_number_of_ranks_and_workers(
    alone: dict[str, Any], ranks: int, workers: int, persistent: bool
) -> None:
    """Statements 5, 6, 9, 10, 11, 12: samples, and the random numbers of each, in both epochs."""
    kinds = None if workers == 0 else ["tail", "weights", "batch_sampler", "stream", "stream by worker"]
    for found in run_ranks(two_epochs, ranks, workers, persistent, kinds):
        for kind, part in found.items():
            assert part == alone[kind], kind


def test_resume_at_another_number_of_ranks_and_workers(alone: dict[str, Any]) -> None:
    """Statements 4, 5, 6: from the middle of the first epoch, with what workers had fetched ahead, into the second."""
    states = {kind: part["middle"] for kind, part in alone.items()}
    for rest in run_ranks(after, 3, states, 0, 5):
        for kind, steps in rest.items():
            assert steps == alone[kind]["steps"][3:8], kind
    some = {kind: states[kind] for kind in ("tail", "stream")}
    for kind, steps in run_ranks(after, 2, some, 3, 5)[0].items():
        assert steps == alone[kind]["steps"][3:8], kind


# --- iterable data that divide themselves ---------------------------------------------------------------------------


def divided(workers: int) -> dict[str, Any]:
    """Evaluation and training over data sets that divide themselves; every number that was seen, by kind."""
    found: dict[str, Any] = {}
    with dtk.init(seed=5) as rt:
        kinds: dict[str, tuple[Any, Any]] = {
            "items": (Stream(), None),
            "double": (Stream(by_worker=True), None),
            "workers": (Stream(by_worker=True), "workers"),
            "shards": (Sharded((5, 3, 9, 4, 1)), None),
            "one shard": (Sharded((13,)), None),
            "itself": (ByRank(rt.world.rank, rt.world.world_size), True),
        }
        if workers:
            loader = rt.loader(
                Between(0, LENGTH), global_batch_size=6, train=False, num_workers=workers,
                sharded="workers" if rt.world.world_size > 1 else None, worker_init_fn=take_a_stretch,
            )  # fmt: skip
            assert sorted(rt.gather(_ids(loader)).tolist()) == list(range(LENGTH))
            loader.close()
        if workers and rt.world.world_size == 1:
            loader = rt.loader(Opened(), global_batch_size=6, num_workers=workers, worker_init_fn=open_data)
            assert {n for _, opened in loader for n in opened.tolist()} == {n + 10 * workers for n in range(workers)}
            loader.close()
        for kind, (dataset, sharded) in kinds.items():
            loader = rt.loader(dataset, global_batch_size=6, train=False, sharded=sharded, num_workers=workers)
            passes = 2 if kind in ("items", "workers") else 1
            found[kind] = [sorted(rt.gather(_ids(loader)).tolist()) for _ in range(passes)]
            with pytest.raises(TypeError):
                len(loader)
            loader.close()
        for kind in ("workers", "shards", "itself"):
            dataset, sharded = kinds[kind]
            if kind == "shards" and rt.world.world_size * max(workers, 1) > 4:
                dataset = Sharded((5, 3, 9, 4, 1, 2, 7, 6))
            found[f"training {kind}"] = trained(rt, dataset, sharded, workers)
    return found


class Between(IterableDataset):
    """The example of torch's documentation that is divided by worker_init_fn."""

    def __init__(self, start: int, end: int) -> None:
        self.start, self.end = start, end

    def __iter__(self) -> Any:
        return ((n, 0.0) for n in range(self.start, self.end))


def take_a_stretch(worker_id: int) -> None:
    """torch's documentation."""
    info: Any = get_worker_info()
    dataset = info.dataset
    per_worker = math.ceil((dataset.end - dataset.start) / info.num_workers)
    dataset.start += info.id * per_worker
    dataset.end = min(dataset.start + per_worker, dataset.end)


class Opened(Dataset):
    """A map-style data set that a worker opens a file for."""

    worker: tuple[int, int] | None = None

    def __len__(self) -> int:
        return LENGTH

    def __getitem__(self, index: int) -> tuple[int, float]:
        assert self.worker is not None
        return index, self.worker[0] + 10 * self.worker[1]


def open_data(worker_id: int) -> None:
    info: Any = get_worker_info()
    assert type(info.dataset) is Opened
    info.dataset.worker = worker_id, info.num_workers


def _ids(loader: Any) -> torch.Tensor:
    parts = [ids for ids, _ in loader]
    return torch.cat(parts) if parts else torch.empty(0, dtype=torch.int64)


def trained(rt: Any, dataset: Any, sharded: Any, workers: int) -> Any:
    """An epoch of training with a stop in the middle, resumed in a new loader at another number of workers."""
    ranks = rt.world.world_size
    loader = rt.loader(dataset, global_batch_size=2 * ranks, sharded=sharded, num_workers=workers)
    whole, state = [], {}
    for ids, _ in loader:
        whole.append((ids.tolist(), loader.weight))
        if len(whole) == 2:
            state = loader.state_dict()
    loader.close()
    shares = rt.group.all_gather_json(whole)
    for step in zip(*shares, strict=True):  # strict: the ranks took the same number of steps
        real = sum(len(ids) for ids, weight in step if weight)
        assert all(weight in (0.0, len(ids) * ranks / real) for ids, weight in step)
    assert len(set(map(json.dumps, rt.group.all_gather_json(state)))) == 1
    again = rt.loader(dataset, global_batch_size=2 * ranks, sharded=sharded, num_workers=0 if workers else 2)
    again.load_state_dict(state)
    rest = [(ids.tolist(), again.weight) for ids, _ in again]
    again.close()
    assert [step for step in rest if step[1]] == [step for step in whole[2:] if step[1]]
    return sorted(n for share in shares for ids, weight in share for n in ids if weight)


@pytest.mark.parametrize(("ranks", "workers"), [(1, 3), (2, 0), (3, 2)])
def test_iterable_data_are_seen_once_and_every_rank_ends(ranks: int, workers: int) -> None:
    """Statement 9: the union is the data set, the intersection empty, and fewer shards than readers do not hang."""
    five = sorted(100 * n + k for n, size in enumerate((5, 3, 9, 4, 1)) for k in range(size))
    eight = sorted(100 * n + k for n, size in enumerate((5, 3, 9, 4, 1, 2, 7, 6)) for k in range(size))
    numbers = list(range(LENGTH))
    for found in run_ranks(divided, ranks, workers):
        assert found["items"] == found["workers"] == [numbers] * 2
        assert found["double"] == found["itself"] == [numbers]
        assert found["shards"] == [five]
        assert found["one shard"] == [list(range(13))]
        assert found["training workers"] == found["training itself"] == numbers
        assert found["training shards"] == (eight if ranks * max(workers, 1) > 4 else five)


def with_too_few_shards() -> str:
    with dtk.init() as rt:
        loader = rt.loader(Sharded((4, 4)), global_batch_size=3)
        with pytest.raises(ConfigError) as error:
            list(loader)
        return str(error.value)


def test_a_rank_that_never_gets_a_sample_is_an_error_on_every_rank() -> None:
    for words in run_ranks(with_too_few_shards, 3):
        assert words.startswith("1 of 3 ranks have got no sample")


# --- Hugging Face ---------------------------------------------------------------------------------------------------


def everyone(rt: Any, mine: list[list[int]]) -> list[int]:
    """All ranks' numbers, sorted."""
    return sorted(n for batches in rt.group.all_gather_json(mine) for batch in batches for n in batch)


def hugging_face(workers: int) -> dict[str, Any]:
    datasets = importlib.import_module("datasets")
    found: dict[str, Any] = {}
    with dtk.init(seed=5) as rt:
        table = datasets.Dataset.from_dict({"n": list(range(LENGTH))}).with_format("torch")
        options: dict[str, Any] = {"num_workers": workers}
        loader = rt.loader(table, global_batch_size=6, drop_last=False, **options)
        steps = [batch["n"].tolist() if loader.weight else [] for batch in loader]
        found["table"] = [sorted(step) for step in gathered(rt, steps)]
        for shards in (3, 4) if workers else (1, 4):
            stream = table.to_iterable_dataset(num_shards=shards)
            if shards != 3:
                stream = stream.shuffle(seed=3, buffer_size=5)
            loader = rt.loader(stream, global_batch_size=6, train=False, **options)
            found[f"{shards}"] = everyone(rt, [batch["n"].tolist() for batch in loader])
            loader = rt.loader(stream, global_batch_size=6, drop_last=False, **options)
            epochs = [[batch["n"].tolist() for batch in loader if loader.weight] for _ in range(2)]
            found[f"{shards} training"] = [everyone(rt, epoch) for epoch in epochs]
            found[f"{shards} reshuffled"] = any(one != two for one, two in rt.group.all_gather_json(epochs))
        split = importlib.import_module("datasets.distributed").split_dataset_by_node(
            stream, rt.world.rank, rt.world.world_size
        )
        loader = rt.loader(split, global_batch_size=6, train=False, **options)
        found["split by node"] = everyone(rt, [batch["n"].tolist() for batch in loader])
        if rt.world.world_size > 1:
            with pytest.raises(ConfigError, match="differ in their shuffling"):
                rt.loader(stream.shuffle(seed=rt.world.rank), global_batch_size=6)
    return found


@pytest.mark.parametrize(("ranks", "workers"), [(1, 0), (2, 2)])
def test_hugging_face_data(ranks: int, workers: int) -> None:
    pytest.importorskip("datasets")
    numbers = list(range(LENGTH))
    for found in run_ranks(hugging_face, ranks, workers):
        table = found.pop("table")
        assert sorted(itertools.chain(*table)) == numbers
        assert [len(step) for step in table] == [6, 6, 6, 6, 5]
        for kind, seen in found.items():
            if kind.endswith("reshuffled"):
                assert seen == (not kind.startswith("3")), kind
            else:
                assert seen == ([numbers] * 2 if kind.endswith("training") else numbers), kind


# --- gradients ------------------------------------------------------------------------------------------------------


def gradients() -> list[list[float]]:
    """Steps over 23 samples in batches of 6: plain DDP, the loss weighed by the loader's hook."""
    found = []
    data = torch.randn(23, 4, generator=torch.Generator().manual_seed(0))
    with dtk.init(seed=5) as rt:
        torch.manual_seed(0)
        model: Any = nn.Linear(4, 1)
        model = nn.parallel.DistributedDataParallel(model) if dist.is_initialized() else model
        for sampler in (None, Short()):
            chosen: dict[str, Any] = {"batch_sampler": sampler} if sampler else {"global_batch_size": 6}
            drop = {} if sampler else {"drop_last": False}
            loader = rt.loader(TensorDataset(data), **chosen, **drop)
            heard: list[float] = []
            loader.on_batch(heard.append)
            for (x,) in loader:
                model.zero_grad()
                loss = F.mse_loss(model(x).squeeze(1), x.sum(1))
                (loss * heard[-1]).backward()
                found.append([p for grad in (q.grad for q in model.parameters()) for p in grad.flatten().tolist()])
    return found


class Short(Sampler):
    """Batches of one, two and five: with three ranks, some have nothing of their own."""

    def __len__(self) -> int:
        return 3

    def __iter__(self) -> Any:
        return iter([[0], [1, 2], [3, 4, 5, 6, 7]])


def test_uneven_batches_give_the_one_process_gradient() -> None:
    """Statement 10: also where a rank has no sample of a step, and without a hang."""
    expected = torch.tensor(run_ranks(gradients, 1)[0])
    assert len(expected) == 7
    for found in run_ranks(gradients, 3):
        torch.testing.assert_close(torch.tensor(found), expected, rtol=1e-5, atol=1e-6)


# --- adopted loaders that know ranks --------------------------------------------------------------------------------


class OwnSplit(Sampler):
    """A sampler of a user's that divides the data over ranks, with torch's names for it."""

    def __init__(self, num_replicas: int, rank: int) -> None:
        self.num_replicas, self.rank, self.epoch = num_replicas, rank, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return 8

    def __iter__(self) -> Any:
        order = torch.randperm(8 * self.num_replicas, generator=torch.Generator().manual_seed(self.epoch))
        return iter(order[self.rank :: self.num_replicas].tolist())


class UnevenSplit(OwnSplit):
    """Batches of 1 and 2 samples on rank 0, of 3 and 3 on rank 1; or of other sizes on rank 0."""

    def __init__(self, num_replicas: int, rank: int, sizes: tuple[int, int] = (1, 2)) -> None:
        super().__init__(num_replicas, rank)
        self.sizes = (3, 3) if rank else sizes

    def __len__(self) -> int:
        return 2

    def __iter__(self) -> Any:
        return iter([list(range(size)) for size in self.sizes])


class NoPadding(DistributedSampler):
    """What scripts write so that an evaluation repeats nothing."""

    def __init__(self, dataset: Any) -> None:
        super().__init__(dataset, shuffle=False)
        self.num_samples = len(range(self.rank, len(dataset), self.num_replicas))

    def __iter__(self) -> Any:
        return iter(range(self.rank, len(self.dataset), self.num_replicas))


def what_is_said() -> list[tuple[list[str], list[int]]]:
    """What rt.shard logs of a loader of 11 samples, and the samples of all ranks, in two epochs of training."""
    found, stream = [], io.StringIO()
    handler = logging.StreamHandler(stream)
    data = TensorDataset(torch.arange(11))
    with dtk.init(seed=5) as rt:
        rt.logger.addHandler(handler)
        for sampler, drop_last, train in (
            (DistributedSampler(data, shuffle=False), False, False),
            (DistributedSampler(data, shuffle=False), True, False),
            (DistributedSampler(data, shuffle=False, drop_last=True), False, False),
            (DistributedSampler(TensorDataset(torch.arange(10)), shuffle=False), False, False),
            (DistributedSampler(data), False, True),
            (NoPadding(data), False, False),
            (NoPadding(data), False, True),
            (None, True, False),
            (None, False, False),
            (SubsetRandomSampler(range(11)), True, False),
        ):
            stream.truncate(stream.seek(0))
            loader = rt.shard(DataLoader(data, batch_size=4, sampler=sampler, drop_last=drop_last), train=train)
            seen = [(ids, loader.weight) for (ids,) in loader]
            assert sum(rt.gather(torch.tensor([weight for _, weight in seen])).tolist()) == pytest.approx(2 * len(seen))
            words = [line for line in stream.getvalue().splitlines() if line]
            found.append((words, sorted(rt.gather(torch.cat([ids for ids, _ in seen])).tolist())))
        rt.logger.removeHandler(handler)
    return found


def test_what_an_adopted_loader_loses_is_said_once() -> None:
    numbers = list(range(11))
    kept = "the loader keeps its DistributedSampler, which "
    evaluation = "; rt.loader(data, global_batch_size=8, train=False) does not"
    own = "NoPadding divides the data over the ranks itself: a resume needs as many ranks, and whether each sample "
    even = "repeats 1 samples an epoch, so that ranks have as many"
    expected = [
        (f"{kept}{even}{evaluation}", sorted([0, *numbers])),
        (f"{kept}{even} and leaves out 4 samples an epoch{evaluation}", list(range(8))),
        (f"{kept}leaves out 1 samples an epoch{evaluation}", list(range(10))),
        ("", list(range(10))),
        (f"{kept}{even} and needs 2 ranks again on a resume; rt.loader(data, global_batch_size=8, drop_last", None),
        (own, numbers),
        (own, numbers),
        ("drop_last=True leaves out 3 of 11 samples of an evaluation", list(range(8))),
        ("", numbers),
        ("drop_last=True leaves out 3 of 11 samples of an evaluation", None),
    ]
    main, other = run_ranks(what_is_said, 2)
    for (words, seen), (said, samples) in zip(main, expected, strict=True):
        assert len(words) == bool(said)
        assert not said or words[0].startswith(said)
        assert samples is None or seen == samples
    assert not any(words for words, _ in other), "rank 0 speaks for all"


def own_split() -> Any:
    with dtk.init(seed=5) as rt:
        data = TensorDataset(torch.arange(8 * rt.world.world_size))
        sampler = OwnSplit(rt.world.world_size, rt.world.rank)
        loader = rt.shard(DataLoader(data, batch_size=3, sampler=sampler))
        epochs = [[ids.tolist() for (ids,) in loader] for _ in range(2)]
        loader.load_state_dict({**loader.state_dict(), "epoch": 1, "position": 1})
        assert [ids.tolist() for (ids,) in loader] == epochs[1][1:]
        batched = rt.shard(DataLoader(data, batch_sampler=BatchSampler(sampler, 3, True)))
        assert len(batched) == 2
        uneven = rt.shard(DataLoader(data, batch_sampler=UnevenSplit(rt.world.world_size, rt.world.rank)))
        assert [uneven.weight for _ in uneven] == [[0.5, 0.8], [1.5, 1.2]][rt.world.rank]
        empty = rt.shard(DataLoader(data, batch_sampler=UnevenSplit(rt.world.world_size, rt.world.rank, (0, 1))))
        with pytest.raises(ConfigError, match="UnevenSplit gives a rank no sample in batch 0 of epoch 0"):
            list(empty)
        other = {**loader.state_dict(), "ranks": 7}
        with pytest.raises(StateMismatch, match="ranks is 2, but 7"):
            loader.load_state_dict(other)
        return epochs


def test_a_sampler_that_divides_the_data_keeps_its_batches_and_gets_its_epochs() -> None:
    for rank, epochs in enumerate(run_ranks(own_split, 2)):
        for epoch, batches in enumerate(epochs):
            sampler = OwnSplit(2, rank)
            sampler.set_epoch(epoch)
            assert batches == list(BatchSampler(sampler, 3, False))


# --- input that makes no sense, on some ranks -----------------------------------------------------------------------


class OfRank(Sampler):
    """Lies: another order on each rank, or from epoch 1 on another length on rank 1."""

    def __init__(self, rank: int, late: bool) -> None:
        self.rank, self.late, self.epoch = rank, late, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return 2

    def __iter__(self) -> Any:
        if not self.late:
            return iter([[self.rank], [2, 3]])
        return iter([[0, 1], [2, 3]][: 1 if self.epoch and self.rank else 2])


def wrong_on_some_ranks() -> list[str]:
    words = []
    with dtk.init() as rt:
        rank = rt.world.rank
        data = TensorDataset(torch.arange(12))

        def late() -> None:
            loader = rt.loader(data, batch_sampler=OfRank(rank, True))
            assert len(list(loader)) == 2
            list(loader)

        attempts = [
            lambda: rt.loader(TensorDataset(torch.arange(12 * rank)), global_batch_size=2),
            lambda: rt.loader(TensorDataset(torch.arange(12 + rank)), global_batch_size=2),
            lambda: rt.loader(data, global_batch_size=2, weights=[1.0 + rank] + [1.0] * 11),
            lambda: rt.loader(data, batch_sampler=OfRank(rank, False)),
            late,
            lambda: rt.shard(DataLoader(data, batch_size=2, sampler=OfRank(rank, False))),
            lambda: rt.loader(data, global_batch_size=2, train=bool(rank), shuffle=False, drop_last=True),
            lambda: rt.loader(data, global_batch_size=2, drop_last=bool(rank)),
            lambda: rt.loader(data, global_batch_size=4, micro_batches=1 + rank),
            lambda: rt.loader(data, global_batch_size=2, num_workers=rank),
            lambda: rt.loader(Stream(), global_batch_size=2, drop_last=bool(rank)),
            lambda: rt.shard(DataLoader(data, batch_size=2, drop_last=bool(rank))),
            lambda: rt.shard(DataLoader(data, batch_size=2), train=bool(rank)),
            lambda: rt.shard(DataLoader(data, batch_size=5, sampler=DistributedSampler(data), drop_last=bool(rank))),
            lambda: rt.loader(data, batch_size=2),
            lambda: rt.loader(data, global_batch_size=2, **({"sampler": None} if rank else {})),
        ]
        for attempt in attempts:
            with pytest.raises(ConfigError) as error:
                attempt()
            words.append(str(error.value))
    return words


def test_what_is_wrong_on_one_rank_is_an_error_on_all() -> None:
    one, two = run_ranks(wrong_on_some_ranks, 2)
    assert one[0] == "the data set is empty"
    assert two[0] == "rank 0 cannot make its loader: the data set is empty"
    for words in (one, two):
        assert "differ in their length (rank 0: 12, rank 1: 13)" in words[1]
        assert "differ in their weights" in words[2]
        assert "differ in their order" in words[3]
        assert "OfRank says that it gives 2 items, but gave 1 in epoch 1" in words[4]
        named = ["train", "drop_last", "micro_batches", "num_workers", "drop_last", "drop_last", "train", "drop_last"]
        for word, name in zip(words[6:14], named, strict=True):
            assert f"the ranks' loaders differ in their {name} (rank 0: " in word
        assert "rt.loader has no batch_size=; use global_batch_size=" in words[14]
        assert "rt.loader has no sampler=; use weights= or batch_sampler=" in words[15]


class Reseeded(IterableDataset):
    """Another random number each time it is read, behind the same numbers."""

    def __iter__(self) -> Any:
        generator = np.random.default_rng()
        return ((n, generator.random()) for n in range(LENGTH))


class Broken(IterableDataset):
    """Cannot be read on rank 1."""

    def __init__(self, rank: int) -> None:
        self.rank = rank

    def __iter__(self) -> Any:
        if self.rank:
            raise RuntimeError("no such file: part-1")
        return iter(range(LENGTH))


def start_late(worker_id: int) -> None:
    get_worker_info().dataset.start += worker_id  # type: ignore[union-attr]


def different_streams() -> dict[str, Any]:
    """Iterable data of which not all readers read the same: what is raised, and what is logged where it is allowed."""
    words: dict[str, Any] = {}
    log = io.StringIO()
    with dtk.init(seed=5) as rt:
        rank, ranks = rt.world.rank, rt.world.world_size
        late: dict[str, Any] = {"num_workers": 2, "worker_init_fn": start_late}
        attempts: dict[str, tuple[Any, dict[str, Any]]] = {
            "training": (ByRank(rank, ranks), {}),
            "evaluation": (ByRank(rank, ranks), {"train": False}),
            "workers": (Between(0, LENGTH), late),
            "random": (Reseeded(), {"train": False}),
            "broken": (Broken(rank), {}),
        }
        for name, (dataset, given) in attempts.items():
            loader = rt.loader(dataset, global_batch_size=2, **given)
            with pytest.raises((ConfigError, RuntimeError)) as error:
                list(loader)
            words[name] = str(error.value)
            loader.close()
        handler = logging.StreamHandler(log)
        rt.logger.addHandler(handler)
        loader = rt.loader(Reseeded(), global_batch_size=6, train=False, sharded=False)
        for _ in range(2):
            assert sorted(rt.gather(_ids(loader)).tolist()) == list(range(LENGTH))
        rt.logger.removeHandler(handler)
        words["allowed"] = log.getvalue().splitlines()
    return words


def test_readers_that_read_different_items_are_found_out() -> None:
    for rank, words in enumerate(run_ranks(different_streams, 2)):
        for name, kind in {"training": "ByRank", "evaluation": "ByRank", "random": "Reseeded"}.items():
            assert words[name].startswith(f"rank 0 and rank 1 read different items from {kind}"), name
            assert "by rank and worker, pass sharded=True" in words[name]
        assert "if worker_init_fn divides it by worker, take that out" in words["workers"]
        assert words["workers"].startswith("the workers of a rank read different items from Between")
        assert words["broken"] == ("" if rank else "rank 1 cannot read Broken: RuntimeError: ") + "no such file: part-1"
        said = [line for line in words["allowed"] if "different items from Reseeded" in line]
        assert len(said) == 1, "once, on every rank"


def training_over_a_stream(root: str, stop_at: int, **goal: int) -> list[Any]:
    """The checkpointer's loop over a loader that has no length."""
    seen: list[Any] = []
    with dtk.init(seed=5) as rt:
        engine = rt.setup(partial(nn.Linear, 1, 1), partial(torch.optim.SGD, lr=0.1))
        loader = rt.loader(Stream(), global_batch_size=6)
        ckpt = rt.checkpointer(root, engine=engine, loader=loader, every=1)
        for step, (ids, _) in ckpt.steps(loader, **(goal or {"until": 11})):
            seen.append((step, ids.tolist()))
            engine.backward(engine(torch.ones(1, 1)).sum())
            engine.step()
            if step == stop_at:
                break
    return seen


def test_the_training_loop_needs_no_length(tmp_path: Path) -> None:
    """Four whole batches an epoch; a stop at the very end of one, where only reading tells that it has ended."""
    whole = run_ranks(training_over_a_stream, 2, str(tmp_path / "whole"), -1)
    run_ranks(training_over_a_stream, 2, str(tmp_path / "stopped"), 9)  # step 8 is saved: the end of epoch 1
    rest = run_ranks(training_over_a_stream, 2, str(tmp_path / "stopped"), -1)
    assert [step for step, _ in whole[0]] == list(range(1, 12))
    assert rest == [part[8:] for part in whole]


def test_epochs_are_counted_where_there_is_no_length(tmp_path: Path) -> None:
    """Two epochs of four batches; also where the stop was at the very end of the last."""
    training = partial(training_over_a_stream, epochs=2)
    whole = run_ranks(training, 2, str(tmp_path / "whole"), -1)
    assert [step for step, _ in whole[0]] == list(range(1, 9))
    assert run_ranks(training, 2, str(tmp_path / "whole"), -1) == [[], []], "there is nothing left to do"
    for stop in (3, 8):
        run_ranks(training, 2, str(tmp_path / f"stopped-{stop}"), stop)
        rest = run_ranks(training, 2, str(tmp_path / f"stopped-{stop}"), -1)
        assert rest == [part[stop - 1 :] for part in whole]
