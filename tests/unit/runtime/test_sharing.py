"""Who writes what, where it lies in a file, and who reads it back: properties."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dist_toolkit.checkpoint import file_layout
from dist_toolkit.checkpoint.file_layout import FileLayout, in_file_order
from dist_toolkit.checkpoint.manifest import TensorEntry
from dist_toolkit.checkpoint.reads import meet
from dist_toolkit.checkpoint.share import Share, even_part
from dist_toolkit.checkpoint.sharing import Held, share_out
from dist_toolkit.checkpoint.sound import BITS
from dist_toolkit.checkpoint.tiling import tile

SHAPES = st.lists(st.integers(1, 7), max_size=3).map(tuple)
TYPES = st.sampled_from(sorted(BITS))


@st.composite
def states(draw: st.DrawFn) -> list[list[Held]]:
    """What 1 to 4 ranks hold: tensors cut along one dimension, tensors that all have, tensors of one rank alone."""
    ranks = draw(st.integers(1, 4))
    held: list[list[Held]] = [[] for _ in range(ranks)]
    for number in range(draw(st.integers(0, 8))):
        name, dtype, shape = f"t{number}", draw(TYPES), draw(SHAPES)
        kind = draw(st.sampled_from(["cut", "common", "own"]))
        if kind == "cut" and shape:
            dim = draw(st.integers(0, len(shape) - 1))
            for rank in range(ranks):
                size, offset = even_part(shape[dim], ranks, rank)
                sizes = (*shape[:dim], size, *shape[dim + 1 :])
                offsets = tuple(offset if d == dim else 0 for d in range(len(shape)))
                held[rank].append(Held(name, dtype, shape, offsets, sizes))
        else:
            zeros = (0,) * len(shape)
            for rank in [draw(st.integers(0, ranks - 1))] if kind == "own" else range(ranks):
                held[rank].append(Held(name, dtype, shape, zeros, shape))
    return held


@given(states())
def test_everything_is_written_once(held: list[list[Held]]) -> None:
    chosen = share_out(held)
    written = [held[rank][position] for rank, positions in enumerate(chosen) for position in positions]
    wanted = {(box.name, box.offsets, box.sizes) for boxes in held for box in boxes}
    assert Counter((box.name, box.offsets, box.sizes) for box in written) == Counter(wanted)
    assert share_out(held) == chosen


@given(st.lists(st.integers(1, 100), min_size=1, max_size=30), st.integers(1, 5))
def test_what_all_ranks_have_is_shared_out_evenly(lengths: list[int], ranks: int) -> None:
    boxes = [Held(f"t{n}", "U8", (length,), (0,), (length,)) for n, length in enumerate(lengths)]
    burden = [sum(boxes[p].bytes for p in positions) for positions in share_out([boxes] * ranks)]
    assert max(burden) - min(burden) <= max(lengths)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (Held("w", "F64", (4,), (0,), (4,)), r"w is F32 \[4\] on rank 0 and F64 \[4\] on rank 1"),
        (Held("w", "F32", (5,), (0,), (5,)), r"w is F32 \[4\] on rank 0 and F32 \[5\] on rank 1"),
        (Held("w", "F32", (4,), (2,), (2,)), r"w of shape \[4\] is not what the ranks hold of it together"),
    ],
)
def test_state_that_is_not_one_tensor_is_refused_by_name(other: Held, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        share_out([[Held("w", "F32", (4,), (0,), (4,))], [other]])


def test_a_tensor_of_which_a_part_is_missing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"w of shape \[4\]"):
        share_out([[Held("w", "F32", (4,), (0,), (2,))], []])


@given(st.integers(0, 40), st.integers(1, 9))
def test_even_parts_are_those_of_torch_chunk(length: int, parts: int) -> None:
    pieces = [piece.tolist() for piece in torch.arange(length).chunk(parts)] if length else []
    for number in range(parts):
        size, offset = even_part(length, parts, number)
        expected = pieces[number] if number < len(pieces) else []
        assert list(range(offset, offset + size)) == expected


@settings(max_examples=200)
@given(st.lists(st.tuples(SHAPES, TYPES), max_size=8), st.integers(1, 64), st.integers(1, 5))
def test_a_file_has_every_byte_once_and_types_where_they_can_lie(
    kinds: list[tuple[tuple[int, ...], str]], piece: int, pieces: int
) -> None:
    boxes = [Held(f"t{n}", dtype, shape, (0,) * len(shape), shape) for n, (shape, dtype) in enumerate(kinds)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(file_layout, "_PIECE", piece)
        patch.setattr(file_layout, "_PIECES", pieces)
        layout = FileLayout(tuple(boxes[n] for n in in_file_order(boxes)))
        at = len(layout.header)
        assert at % 8 == 0
        for box, begin, end in layout.chunks:
            assert begin == at
            assert end - begin == box.bytes
            assert begin % (BITS[box.dtype] // 8) == 0
            at = end
        assert at == layout.entry.size
        for box in boxes:
            mine = [part for part, _, _ in layout.chunks if part.name == box.name]
            assert sum(math.prod(part.sizes) for part in mine) == math.prod(box.sizes)
            assert tile(mine)


@settings(max_examples=200)
@given(SHAPES.filter(bool), st.data())
def test_a_rank_reads_what_meets_its_part_and_puts_it_in_place(shape: tuple[int, ...], data: st.DataObject) -> None:
    """Saved in some pieces, wanted in others: the planned copies make up exactly the part that is wanted."""
    whole = torch.arange(math.prod(shape)).reshape(shape)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(file_layout, "_PIECE", data.draw(st.integers(1, 64)))
        patch.setattr(file_layout, "_PIECES", 100)
        layout = FileLayout((Held("w", "I64", shape, (0,) * len(shape), shape),))
        entry = TensorEntry("I64", shape, tuple(c for _, c in layout.rows("f", ["d"] * len(layout.chunks))))
    begins = [data.draw(st.integers(0, length - 1)) for length in shape]
    ends = [data.draw(st.integers(b + 1, length)) for b, length in zip(begins, shape, strict=True)]
    mine = tuple(slice(b, e) for b, e in zip(begins, ends, strict=True))
    share = Share(torch.full([e - b for b, e in zip(begins, ends, strict=True)], -1), shape, tuple(begins))
    for chunk in entry.chunks:
        read = meet("w", chunk, share)
        if read is not None:
            saved = whole[tuple(slice(o, o + s) for o, s in zip(chunk.offsets, chunk.sizes, strict=True))]
            read.target.copy_(saved if read.source is None else saved[read.source])
    assert torch.equal(share.data, whole[mine])
