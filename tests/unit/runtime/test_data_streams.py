"""Iterable data sets, as properties: items shared out, streams that divide themselves, steps taken together."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from dist_toolkit.data import Choices, Place, build_loader, shard
from dist_toolkit.data.agreed import Local, in_step
from dist_toolkit.data.feeds import Ready
from dist_toolkit.data.heads import Head
from dist_toolkit.data.loader import Loader
from dist_toolkit.data.prefetch import one_ahead
from dist_toolkit.data.splitting import choose_splitting, shuffle_digest
from dist_toolkit.data.streams import Reading, StreamDataset, StreamRequest
from dist_toolkit.errors import ConfigError, StateMismatch
from dist_toolkit.world import World

CPU = torch.device("cpu")


class Numbers(IterableDataset):
    """0, 1, 2, ... with a random number beside each; looks at nothing."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __iter__(self) -> Any:
        for n in range(self.length):
            yield n, torch.rand(1).item()


class ByWorker(IterableDataset):
    """Divides itself by torch's worker info, as torch's documentation shows it."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __iter__(self) -> Any:
        info = get_worker_info()
        first, step = (0, 1) if info is None else (info.id, info.num_workers)
        return iter(range(first, self.length, step))


class ByShard(IterableDataset):
    """A few shards of different sizes, behind the documented protocol."""

    def __init__(self, sizes: list[int], chosen: list[int] | None = None) -> None:
        self.sizes = sizes
        self.chosen = list(range(len(sizes))) if chosen is None else chosen
        self.num_shards = len(sizes)

    def shard(self, index: int, count: int) -> ByShard:
        return ByShard(self.sizes, list(range(index, len(self.sizes), count)))

    def __iter__(self) -> Any:
        for shard_number in self.chosen:
            yield from (1000 * shard_number + n for n in range(self.sizes[shard_number]))


def loader_of(dataset: Any, batch: int, rank: int = 0, world_size: int = 1, **choices: Any) -> Loader:
    world = World(rank, rank, world_size, world_size, launched=world_size > 1)
    return build_loader(dataset, Place(world, CPU, 3), Choices(batch, **choices), {})


def numbers_of(loader: Loader) -> list[tuple[list[int], float]]:
    return [(batch[0].tolist(), loader.weight) for batch in loader]


# --- items shared out -----------------------------------------------------------------------------------------------


@given(length=st.integers(0, 60), world_size=st.integers(1, 4), per_rank=st.integers(1, 4), drop_last=st.booleans())
def test_training_takes_the_same_steps_on_any_number_of_ranks(
    length: int, world_size: int, per_rank: int, drop_last: bool
) -> None:
    """Step n holds the same items as on one rank, all ranks take part, and no message was needed for it."""
    batch = per_rank * world_size
    shares = [
        numbers_of(loader_of(Numbers(length), batch, r, world_size, drop_last=drop_last)) for r in range(world_size)
    ]
    steps = list(zip(*shares, strict=True))
    for number, parts in enumerate(steps):
        expected = list(range(number * batch, min((number + 1) * batch, length)))
        assert sorted(n for mine, weight in parts for n in mine if weight) == expected
        assert all(mine for mine, _ in parts)
        assert sum(weight for _, weight in parts) == pytest.approx(world_size)
    assert len(steps) == (length // batch if drop_last else -(-length // batch))


@given(length=st.integers(0, 40), world_size=st.integers(1, 4), batch=st.integers(1, 9))
def test_evaluation_sees_each_item_once_without_a_length(length: int, world_size: int, batch: int) -> None:
    loaders = [loader_of(Numbers(length), batch, rank, world_size, train=False) for rank in range(world_size)]
    for _ in range(2):
        assert sorted(n for loader in loaders for mine, _ in numbers_of(loader) for n in mine) == list(range(length))
    with pytest.raises(TypeError, match="the iterable Numbers has no length"):
        len(loaders[0])


@settings(max_examples=40)
@given(length=st.integers(1, 60), epoch=st.integers(0, 3), cut=st.integers(0, 15), worlds=st.permutations([1, 2, 3]))
def test_a_stream_resumes_exactly_at_another_number_of_ranks(
    length: int, epoch: int, cut: int, worlds: list[int]
) -> None:
    """Items and their random numbers, to the end of the epoch and in the next one."""

    def items_of(world_size: int, state: dict, steps: int) -> tuple[list, dict]:
        found, after = [], state
        for rank in range(world_size):
            loader = loader_of(Numbers(length), 6, rank, world_size, drop_last=False)
            loader.load_state_dict(state)
            mine: list = []
            while len(mine) < steps:
                for ids, noise in loader:
                    mine.append([] if not loader.weight else list(zip(ids.tolist(), noise.tolist(), strict=True)))
                    if len(mine) == steps:
                        break
            found.append(mine)
            after = loader.state_dict()
        return [sorted(itertools.chain(*parts)) for parts in zip(*found, strict=True)], after

    start = {**loader_of(Numbers(1), 6).state_dict(), "epoch": epoch}
    expected = items_of(1, start, cut + 12)[0]
    before, middle = items_of(worlds[0], start, cut)
    assert before + items_of(worlds[1], middle, 12)[0] == expected
    assert set(middle) == {"epoch", "position", "stream", "seed", "global_batch_size"}


def test_a_stop_at_the_very_end_of_an_epoch_goes_on_with_the_next() -> None:
    """Nothing but reading tells that the epoch had ended, and the loop must not see a `for` without batches."""
    loader = loader_of(Numbers(8), 4)
    for n, _ in enumerate(loader, 1):
        if n == 2:
            break
    again = loader_of(Numbers(8), 4)
    again.load_state_dict(loader.state_dict())
    assert again.state_dict()["position"] == 8
    assert [ids for ids, _ in numbers_of(again)] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert (again.epoch, again.position) == (2, 0)


@given(
    length=st.integers(0, 50), world_size=st.integers(1, 3), size=st.integers(1, 7),
    readers=st.lists(st.integers(0, 3), min_size=60, max_size=60),
)  # fmt: skip
def test_what_a_request_gives_does_not_depend_on_who_reads_it(
    length: int, world_size: int, size: int, readers: list[int]
) -> None:
    """Whichever worker gets a request, and whatever it read before: the same items with the same random numbers."""
    reading = Reading("items", world_size - 1, world_size, 3, True, True)
    alone, crew = StreamDataset(Numbers(length), reading), [StreamDataset(Numbers(length), reading) for _ in range(4)]
    for number, reader in enumerate(readers[: length // size + 2]):
        request = StreamRequest(1, 0, 0, 1, number * size, size)
        expected, found = alone.__getitems__([request]), crew[reader].__getitems__([request])
        assert list(found) == list(expected)
        assert (found.mine, found.total, found.seed) == (expected.mine, expected.total, expected.seed)


def test_reading_a_stream_leaves_the_training_s_random_numbers_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    loader = loader_of(Numbers(8), 4)
    noise = [[x for _, values in loader for x in values.tolist()] for _ in range(2)]
    assert torch.equal(torch.rand(3), expected)
    assert len({*noise[0], *noise[1]}) == 16
    assert [x for _, values in loader_of(Numbers(8), 4) for x in values.tolist()] == noise[0], "nor depends on them"
    assert get_worker_info() is None


# --- data sets that divide themselves -------------------------------------------------------------------------------


@given(
    sizes=st.lists(st.integers(0, 12), min_size=1, max_size=9), world_size=st.integers(1, 4), slots=st.integers(1, 3),
    size=st.integers(1, 4), kind=st.sampled_from(["shards", "workers"]),
)  # fmt: skip
def test_streams_partition_the_data(sizes: list[int], world_size: int, slots: int, size: int, kind: str) -> None:
    """Any number of shards over any number of ranks and workers, also where some get none."""
    dataset: Any = ByShard(sizes) if kind == "shards" else ByWorker(sum(sizes))
    found: list[int] = []
    for rank in range(world_size):
        readers = StreamDataset(dataset, Reading(kind, rank, world_size, 3, False, True))  # type: ignore[arg-type]
        for slot in range(slots):
            for turn in itertools.count():
                samples = readers.__getitems__([StreamRequest(1, 0, slot, slots, turn * size, size)])
                assert samples.total == len(samples) <= size
                found += samples
                if samples.total < size:
                    break
    assert sorted(found) == sorted(dataset)
    assert get_worker_info() is None


def test_who_divides_is_found_out_or_said() -> None:
    assert choose_splitting(Numbers(3), None, 2) == "items"
    assert choose_splitting(ByWorker(3), None, 2) == "items", "it would be divided twice"
    assert choose_splitting(ByWorker(3), "workers", 2) == "workers"
    assert choose_splitting(Numbers(3), True, 2) == "itself"
    assert choose_splitting(ByShard([1, 1, 1, 1]), None, 2) == "shards"
    assert choose_splitting(ByShard([1, 1, 1]), None, 2) == "items", "three shards over two ranks are uneven"
    assert choose_splitting(ByShard([1, 1]), False, 2) == "items"
    with pytest.raises(ConfigError, match="sharded='rank' is unknown"):
        choose_splitting(Numbers(3), "rank", 2)  # type: ignore[arg-type]


def test_the_state_of_a_divided_stream_names_the_ranks_and_keeps_the_streams() -> None:
    loader = loader_of(ByShard([4, 4]), 4, 0, 2, train=False)
    assert loader.state_dict()["ranks"] == 2
    assert loader.state_dict()["slots"] == 1
    with pytest.raises(StateMismatch, match="ranks is 1, but 2"):
        loader_of(ByShard([4, 4]), 4, sharded="workers").load_state_dict({**loader.state_dict(), "stream": "workers"})
    loader.load_state_dict({**loader.state_dict(), "slots": 3})
    assert loader.state_dict()["slots"] == 3


def test_the_shuffling_of_a_hugging_face_stream_is_told_apart_and_stays_as_it_is() -> None:
    """Two seeds differ, one is the same after reading and in another epoch; seed=None would differ on each rank."""
    datasets = pytest.importorskip("datasets")
    stream = datasets.Dataset.from_dict({"n": list(range(12))}).to_iterable_dataset(num_shards=2)
    one, same, other = (stream.shuffle(seed=seed, buffer_size=4) for seed in (1, 1, 2))
    before = shuffle_digest(one)
    assert before == shuffle_digest(same) != shuffle_digest(other)
    assert shuffle_digest(stream) == shuffle_digest(Numbers(3)) == ""
    loader = loader_of(one, 4)
    epochs = [[n for batch in loader for n in batch["n"].tolist()] for _ in range(2)]
    assert epochs[0] != epochs[1]
    assert shuffle_digest(one) == before
    again = loader_of(same, 4)
    again.load_state_dict({**loader.state_dict(), "epoch": 1, "position": 1})
    assert [n for batch in again for n in batch["n"].tolist()] == epochs[1][4:]


# --- steps taken together -------------------------------------------------------------------------------------------


class Pool:
    """The sums of a group of threads, in the order in which each of them began."""

    def __init__(self, ranks: int) -> None:
        self.ranks, self.sums, self.given = ranks, {}, {}
        self.changed = threading.Condition()

    def member(self) -> Member:
        return Member(self)


class Member:
    def __init__(self, pool: Pool) -> None:
        self.pool, self.calls = pool, 0

    def start_all_reduce(self, facts: torch.Tensor) -> Any:
        number, pool = self.calls, self.pool
        self.calls += 1
        with pool.changed:
            pool.sums[number] = pool.sums.get(number, 0) + facts
            pool.given[number] = pool.given.get(number, 0) + 1
            pool.changed.notify_all()

        class Work:
            def wait(self) -> torch.Tensor:
                with pool.changed:
                    assert pool.changed.wait_for(lambda: pool.given[number] == pool.ranks, 5), "a rank is left waiting"
                    return pool.sums[number]

        return Work()


def local(batches: list[int]) -> Iterator[Local]:
    """`batches[n]` samples at step n; the batch is the step's number."""
    left = len(batches)
    for number, samples in enumerate(batches):
        left -= 1
        yield Local(number if samples else None, number + 1, samples, int(left > 0))
    for number in itertools.count(len(batches)):
        yield Local(None, number + 1, 0, 0)


def together(ranks: list[list[int]]) -> list[Any]:
    pool, found = Pool(len(ranks)), [None] * len(ranks)

    def run(rank: int) -> None:
        try:
            found[rank] = list(in_step(local(ranks[rank]), pool.member(), len(ranks)))  # type: ignore[arg-type]
        except ConfigError as error:
            found[rank] = str(error)

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(len(ranks))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


@given(st.lists(st.lists(st.integers(0, 3), max_size=6), min_size=1, max_size=4))
def test_uneven_ranks_end_together_with_the_right_weights(ranks: list[list[int]]) -> None:
    """No rank waits for ever; weights are by real samples; a rank without any has a copy, or all hear of it."""
    longest = max(map(len, ranks))
    counts = [[batches[n] if n < len(batches) else 0 for batches in ranks] for n in range(longest)]
    real = [n for n in range(longest) if sum(counts[n])]
    impossible = [n for n in real if any(not any(counts[m][r] for m in range(n + 1)) for r in range(len(ranks)))]
    found = together(ranks)
    if impossible:
        assert all("have got no sample when others have" in words for words in found)
        return
    for rank, steps in enumerate(found):
        assert [ready.stop for ready in steps] == [n + 1 for n in real]
        for ready, n in zip(steps, real, strict=True):
            assert ready.weight == counts[n][rank] * len(ranks) / sum(counts[n])
            assert ready.batch == max(m for m in range(n + 1) if counts[m][rank]), "its own, or its last one again"


# --- one batch ahead ------------------------------------------------------------------------------------------------


class Fake:
    """A transfer that notes what happens when."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def start(self, batch: Any) -> Any:
        self.events.append(f"start {batch}")
        return ["moving", batch]

    def finish(self, started: Any) -> Any:
        _, batch = started
        self.events.append(f"finish {batch}")
        return f"on device {batch}"


def test_the_next_transfer_begins_before_a_batch_is_handed_out() -> None:
    transfer = Fake()
    batches = one_ahead((Ready(n, 10 * (n + 1), 1.0) for n in range(3)), transfer)
    assert next(batches) == Ready("on device 0", 10, 1.0)
    assert transfer.events == ["start 0", "start 1", "finish 0"]
    assert list(batches) == [Ready("on device 1", 20, 1.0), Ready("on device 2", 30, 1.0)]
    assert transfer.events[3:] == ["start 2", "finish 1", "finish 2"]
    assert list(one_ahead(iter([]), transfer)) == []


def test_what_was_begun_but_not_handed_out_is_fetched_again() -> None:
    """The loader's position counts batches that the loop has seen, whatever is on its way to the device."""
    loader = loader_of(Numbers(20), 4)
    loader._transfer, loader.device = Fake(), torch.device("meta")
    batches = iter(loader)
    next(batches), next(batches)
    assert loader.position == 8
    again = loader_of(Numbers(20), 4)
    again.load_state_dict(loader.state_dict())
    assert next(ids for ids, _ in numbers_of(again)) == [8, 9, 10, 11]


# --- hooks, and input that makes no sense ---------------------------------------------------------------------------


def test_hooks_hear_the_weight_of_training_batches_alone() -> None:
    for train in (True, False):
        heard: list[float] = []
        loader = loader_of(Numbers(7), 4, 1, 2, train=train, drop_last=False)
        loader.on_batch(heard.append)
        seen = [loader.weight for _ in loader]
        assert heard == ([1.0, 2 / 3] if train else [])
        assert seen == ([1.0, 2 / 3] if train else [1.0, 1.0])


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        ({"shuffle": True}, "its order is its own; drop shuffle=True"),
        ({"weights": [1.0]}, "weights= needs samples that can be fetched by index"),
        ({"lengths": [1]}, "lengths= needs"),
        ({"batch_sampler": [[1]], "global_batch_size": None}, "batch_sampler= needs"),
        ({"global_batch_size": 3}, "does not divide over 2 ranks"),
    ],
)  # fmt: skip
def test_choices_that_an_iterable_data_set_cannot_have(choices: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        loader_of(Numbers(3), **{"batch": 2, "rank": 0, "world_size": 2, **_renamed(choices)})


def _renamed(choices: dict) -> dict:
    return {"batch" if name == "global_batch_size" else name: value for name, value in choices.items()}


def test_an_adopted_iterable_loader_says_whether_it_trains() -> None:
    place = Place(World(), CPU, 3)
    with pytest.raises(ConfigError, match="pass train=True or train=False"):
        shard(DataLoader(Numbers(5), batch_size=2), place)
    loader = shard(DataLoader(Numbers(5), batch_size=2), place, train=True)
    assert [ids for ids, _ in numbers_of(loader)] == [[0, 1], [2, 3], [4]]


def test_an_empty_stream_ends() -> None:
    assert numbers_of(loader_of(Numbers(0), 2)) == []
    assert numbers_of(loader_of(ByShard([0, 0]), 2, sharded="workers")) == []


# --- whether all readers read the same ------------------------------------------------------------------------------

leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.binary(max_size=5),
    st.integers(-9, 9).map(torch.tensor),
    st.lists(st.floats(width=32), max_size=3).map(lambda values: np.array(values, dtype=np.float32)),
    st.integers(0, 9).map(lambda n: torch.full((2,), n, dtype=torch.bfloat16)),
)
nested = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner, inner),
        st.dictionaries(st.text(max_size=3), inner, max_size=3),
        st.builds(Ready, inner, st.integers(), st.floats()),
    ),
    max_leaves=6,
)


def head_of(items: list[Any], size: int = 16) -> str:
    head = Head(size)
    for item in items:
        head.see(item)
    return head.digest()


@given(items=st.lists(nested, max_size=5), size=st.integers(1, 6), more=nested)
def test_the_head_of_a_stream_is_that_of_its_first_items(items: list[Any], size: int, more: Any) -> None:
    assert head_of(items, size) == head_of(copy.deepcopy(items), size) == head_of(items[:size], size)
    longer = head_of([*items, more], size)
    assert (longer == head_of(items, size)) == (len(items) >= size)


@dataclasses.dataclass
class Pair:
    left: Any
    right: Any


class Opaque(Mapping[str, int]):
    """Cannot be looked at."""

    def __getitem__(self, name: str) -> int:
        raise OSError(name)

    def __iter__(self) -> Any:
        return iter(["x"])

    def __len__(self) -> int:
        return 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 2),
        (1, 1.0),
        ("1", b"1"),
        ([1, [2]], [[1], 2]),
        ({"id": torch.tensor([1, 2])}, {"id": torch.tensor([1, 3])}),
        (torch.zeros(2, 3), torch.zeros(3, 2)),
        (np.array([1, 2]), np.array([2, 1])),
        (np.float32(1.5), np.float32(2.5)),
        (Pair(1, object()), Pair(2, object())),
        (torch.tensor([1 + 2j]).conj(), torch.tensor([1 + 2j])),
    ],
)
def test_other_items_have_another_digest(one: Any, other: Any) -> None:
    assert head_of([one]) != head_of([other])


def test_what_cannot_be_told_of_an_item_is_left_out() -> None:
    assert head_of([object()]) == head_of([object()])
    assert head_of([Opaque(), 1]) == head_of([Opaque(), 1]) != head_of([Opaque(), 2])
    assert head_of([torch.eye(2).to_sparse()]) == head_of([torch.eye(2).to_sparse()])
    assert head_of([np.array([object()])]) == head_of([np.array([object()])])
    assert head_of([torch.ones(2, device="meta")]) == head_of([torch.ones(2, device="meta")])
