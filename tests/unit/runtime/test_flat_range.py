"""Ranges of elements as boxes: every element once, in order; and what a rank that holds a range hands out."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dist_toolkit.checkpoint.tiling import tile
from dist_toolkit.group import SoloGroup
from dist_toolkit.strategies.flat_range import FlatRange, boxes
from dist_toolkit.world import World


@st.composite
def cuts(draw: st.DrawFn) -> tuple[tuple[int, ...], list[int]]:
    """A shape, and where the elements of such a tensor are cut."""
    shape = tuple(draw(st.lists(st.integers(1, 5), max_size=4)))
    inner = st.lists(st.integers(0, math.prod(shape)), max_size=4)
    return shape, [0, *sorted(draw(inner)), math.prod(shape)]


class Box:
    def __init__(self, offsets: tuple[int, ...], sizes: tuple[int, ...]) -> None:
        self.offsets, self.sizes = offsets, sizes


@given(cuts())
def test_the_boxes_of_a_range_are_its_elements_in_order(cut: tuple[tuple[int, ...], list[int]]) -> None:
    shape, ends = cut
    numbers = torch.arange(math.prod(shape)).view(shape)
    found, places = [], []
    for begin, end in pairwise(ends):
        mine = boxes(shape, begin, end - begin)
        assert len(mine) <= max(1, 2 * len(shape) - 1)
        for offsets, sizes in mine:
            box = numbers[tuple(slice(o, o + s) for o, s in zip(offsets, sizes, strict=True))]
            found += box.flatten().tolist()
        places += [Box(*place) for place in mine]
    assert found == list(range(math.prod(shape)))
    assert tile(places)
    assert not shape or not tile([*places, places[0]])


def test_a_range_gives_views_of_its_memory_and_cannot_be_computed_with() -> None:
    group = SoloGroup(World(), torch.device("cpu"))
    local = torch.arange(12.0)
    whole = FlatRange(local[2:9], 0, (2, 3), group)
    assert (whole.shape, whole.dtype) == ((2, 3), torch.float32)
    half = FlatRange(local[2:7], 1, (2, 3), group).detach()
    parts = dict(half.parts())
    assert {place: part.tolist() for place, part in parts.items()} == {(0, 1): [[2.0, 3.0]], (1, 0): [[4.0, 5.0, 6.0]]}
    parts[0, 1].zero_()
    assert local[2:4].tolist() == [0.0, 0.0]
    assert half.full_tensor().tolist() == [[0.0, 0.0, 0.0], [4.0, 5.0, 6.0]]
    with pytest.raises(TypeError, match=r"call to_local\(\)"):
        torch.add(half, half)
