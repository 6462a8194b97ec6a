"""The global sample order and its division over ranks, as properties."""

from __future__ import annotations

import itertools
import json
import time
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import TensorDataset

from dist_toolkit.data.build import Choices, Place, build_loader
from dist_toolkit.data.loader import Loader
from dist_toolkit.data.order import GlobalOrder
from dist_toolkit.data.sampler import Division, ShareSampler, share_bounds
from dist_toolkit.world import World

lengths = st.integers(1, 3000)
CPU = torch.device("cpu")


def loader_of(dataset: TensorDataset, batch: int, seed: int, rank: int = 0, world_size: int = 1) -> Loader:
    world = World(rank, rank, world_size, world_size, launched=world_size > 1)
    return build_loader(dataset, Place(world, CPU, seed), Choices(batch), {})


@given(length=lengths, seed=st.integers(), epoch=st.integers(0, 1000))
def test_an_epoch_is_a_permutation(length: int, seed: int, epoch: int) -> None:
    order = GlobalOrder(length, True, seed).indices(epoch, 0, length)
    assert sorted(order.tolist()) == list(range(length))


@given(length=lengths, seed=st.integers(), data=st.data())
def test_any_part_of_an_epoch_is_that_part_of_the_whole(length: int, seed: int, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, length))
    stop = data.draw(st.integers(start, length))
    order = GlobalOrder(length, True, seed)
    assert order.indices(3, start, stop).tolist() == order.indices(3, 0, length)[start:stop].tolist()


@given(
    length=lengths, world_size=st.integers(1, 9), batch=st.integers(1, 64), seed=st.integers(0, 5), data=st.data()
)  # fmt: skip
def test_shares_make_up_the_global_batch_from_any_position(
    length: int, world_size: int, batch: int, seed: int, data: st.DataObject
) -> None:
    """From any position, each sample of the rest comes once, in shares whose sizes differ by at most one."""
    order = GlobalOrder(length, True, seed)
    start = min(data.draw(st.integers(0, length // batch)) * batch, length)
    divisions = [Division(rank, world_size) for rank in range(world_size)]
    shares = [list(ShareSampler(order, batch, division, False).batches(1, start)) for division in divisions]
    taken = []
    for parts in zip(*shares, strict=True):
        assert len({share.stop for share in parts}) == 1
        sizes = [len(share.keys) for share in parts]
        assert max(sizes) - min(sizes) <= 1
        taken += [key.sample for share in parts for key in share.keys]
    assert taken == order.indices(1, start, length).tolist()


@given(length=lengths, world_size=st.integers(1, 9), batch=st.integers(1, 64), drop_last=st.booleans())
def test_length_of_a_loader_is_the_number_of_its_batches(
    length: int, world_size: int, batch: int, drop_last: bool
) -> None:
    for rank in range(world_size):
        sampler = ShareSampler(GlobalOrder(length), batch, Division(rank, world_size), drop_last)
        assert sampler.batches_per_epoch() == sum(bool(share.keys) for share in sampler.batches(0, 0))


@given(size=st.integers(0, 100), world_size=st.integers(1, 12))
def test_share_bounds_partition(size: int, world_size: int) -> None:
    bounds = [share_bounds(size, rank, world_size) for rank in range(world_size)]
    assert bounds[0][0] == 0
    assert bounds[-1][1] == size
    assert all(a[1] == b[0] for a, b in itertools.pairwise(bounds))


def test_orders_are_spread_evenly() -> None:
    """All 24 orders of four samples, over 4,800 epochs: chi-squared below the 0.1 % point for 23 degrees of freedom."""
    order = GlobalOrder(4, True, 0)
    counts = Counter(tuple(order.indices(epoch, 0, 4).tolist()) for epoch in range(4800))
    assert len(counts) == 24
    assert sum((count - 200) ** 2 / 200 for count in counts.values()) < 49.7


def test_neighbours_and_epochs_are_unrelated() -> None:
    first, second = (GlobalOrder(10_000, True, 7).indices(epoch, 0, 10_000) for epoch in (0, 1))
    assert abs(np.corrcoef(first[:-1], first[1:])[0, 1]) < 0.05
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.05


def test_seeking_in_a_billion_samples_stores_nothing() -> None:
    order = GlobalOrder(10**9, True, 1)
    started = time.process_time()
    part = order.indices(5, 999_999_000, 10**9)
    assert len(set(part.tolist())) == 1000
    assert 0 <= part.min() <= part.max() < 10**9
    assert time.process_time() - started < 5  # an index array of 8 GB would take minutes


def test_positions_outside_an_epoch_are_refused() -> None:
    with pytest.raises(IndexError, match="positions 5 to 11 are not in an epoch of 10"):
        GlobalOrder(10).indices(0, 5, 11)
    with pytest.raises(ValueError, match="negative"):
        GlobalOrder(-1)


@given(position=st.integers(0, 10**12), epoch=st.integers(0, 10**6), seed=st.integers(-(2**63), 2**63))
def test_loader_state_is_under_200_bytes(position: int, epoch: int, seed: int) -> None:
    dataset = TensorDataset(torch.zeros(8))
    loader = loader_of(dataset, 2, seed)
    loader.position, loader.epoch = position, epoch
    assert len(json.dumps(loader.state_dict())) < 200


@given(
    length=st.integers(1, 60), batch=st.integers(1, 20), worlds=st.lists(st.integers(1, 4), min_size=1, max_size=5),
    steps=st.lists(st.integers(0, 4), min_size=5, max_size=5),
)  # fmt: skip
def test_resume_at_any_number_of_ranks_keeps_the_order(
    length: int, batch: int, worlds: list[int], steps: list[int]
) -> None:
    """Go on at another number of ranks after a few batches, again and again: the same samples as in one go."""
    batch *= 12  # divides over 1 to 4 ranks
    length += batch
    dataset = TensorDataset(torch.arange(length))

    def take(world_size: int, state: dict, count: int) -> tuple[list[list[int]], dict]:
        shares, after = [], state
        for rank in range(world_size):
            loader = loader_of(dataset, batch, 3, rank, world_size)
            loader.load_state_dict(state)
            got: list[list[int]] = []
            while len(got) < count:
                got += [b[0].tolist() for _, b in zip(range(count - len(got)), loader, strict=False)]
            shares.append(got)
            after = loader.state_dict()
        return [[n for part in parts for n in part] for parts in zip(*shares, strict=True)], after

    start = loader_of(dataset, batch, 3).state_dict()
    seen, state = [], start
    for world_size, count in zip(worlds, steps, strict=False):
        batches, state = take(world_size, state, count)
        seen += batches
    assert seen == take(1, start, len(seen))[0]
