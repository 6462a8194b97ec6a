"""Records that are large, or say so: checked in time that grows with their size, or refused before they are read."""

from __future__ import annotations

import math
import random
import time
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dist_toolkit.checkpoint import save, tiling
from dist_toolkit.checkpoint.manifest import Chunk, FileEntry, Manifest, TensorEntry, decode
from dist_toolkit.checkpoint.tiling import overlap, tile
from dist_toolkit.errors import CheckpointCorrupt, PeerError
from tests.faults.program import Program, found, results

FILE = "rank-00000.safetensors"
MANY = 20_000


class Place(NamedTuple):
    offsets: tuple[int, ...]
    sizes: tuple[int, ...]


def record(shape: tuple[int, ...], places: list[Place]) -> bytes:
    """Of one tensor of bytes in these chunks."""
    chunks, end = [], 0
    for place in places:
        begin, end = end, end + math.prod(place.sizes)
        chunks.append(Chunk(FILE, begin, end, place.offsets, place.sizes, "d" * 32))
    tensors = {"t": TensorEntry("U8", shape, tuple(chunks))}
    return Manifest(1, 1, "", "", {FILE: FileEntry(end, 0, "d" * 32)}, tensors).encode()


def grid(rows: int, columns: int, height: int = 1, width: int = 1) -> list[Place]:
    return [Place((r * height, c * width), (height, width)) for r in range(rows) for c in range(columns)]


def bricks(rows: int, columns: int) -> list[Place]:
    """As a wall: every other row is shifted by half a brick."""
    places = []
    for row in range(rows):
        ends = [0, *(2 * c + 1 for c in range(columns)), 2 * columns] if row % 2 else range(0, 2 * columns + 1, 2)
        places += [Place((2 * row, b), (2, e - b)) for b, e in zip(list(ends), list(ends)[1:], strict=False)]
    return places


def shifted(places: list[Place]) -> list[Place]:
    """The same number of elements, two chunks in one place."""
    return [*places[:-1], Place((0, 0), places[-1].sizes)]


CUTS = {
    "grid": ((1000, 200), grid(500, 200, 2), True),
    "wall": ((200, 398), bricks(100, 199), True),
    "twice the same": ((200, 200), shifted(grid(100, 200, 2)), False),
    "all of a row in one place": ((MANY, 2), [Place((0, 0), (2, 1)), *grid(MANY - 1, 1, 1, 2)], False),
    "five dimensions": (
        (2, 2, 2, 2, 2 * MANY),
        [Place((i % 2, i // 2 % 2, i // 4 % 2, i // 8 % 2, i // 16), (1, 1, 1, 1, 1)) for i in range(32 * MANY // 16)],
        True,
    ),
}


@pytest.mark.parametrize("cut", CUTS)
def test_many_chunks_take_seconds(cut: str) -> None:
    shape, places, whole = CUTS[cut]
    places = random.Random(1).sample(places, len(places))
    assert len(places) >= MANY * 0.99
    data = record(shape, places)
    began = time.process_time()
    if whole and math.prod(shape) == sum(math.prod(place.sizes) for place in places):
        assert decode(data, "m").tensors["t"].shape == shape
    else:
        with pytest.raises(CheckpointCorrupt):
            decode(data, "m")
    assert time.process_time() - began < 20


@st.composite
def cuts(draw: st.DrawFn) -> list[Place]:
    """A box cut up by halves, and then perhaps one part moved: no longer a tiling, but of the same size."""
    dims = draw(st.integers(1, 4))
    parts = [Place((0,) * dims, tuple(draw(st.integers(1, 6)) for _ in range(dims)))]
    for _ in range(draw(st.integers(0, 12))):
        o, s = parts.pop(draw(st.integers(0, len(parts) - 1)))
        d = draw(st.integers(0, dims - 1))
        at = draw(st.integers(0, s[d]))
        low, high = (*s[:d], at, *s[d + 1 :]), (*s[:d], s[d] - at, *s[d + 1 :])
        parts += [p for p in (Place(o, low), Place((*o[:d], o[d] + at, *o[d + 1 :]), high)) if math.prod(p.sizes)]
    if draw(st.booleans()):
        number = draw(st.integers(0, len(parts) - 1))
        other = draw(st.sampled_from(parts))
        parts[number] = Place(other.offsets, parts[number].sizes)
    return parts


@settings(max_examples=300)
@given(cuts())
def test_corners_tell_what_comparing_all_pairs_tells(parts: list[Place]) -> None:
    bounds = [max(p.offsets[d] + p.sizes[d] for p in parts) for d in range(len(parts[0].sizes))]
    fits = math.prod(bounds) == sum(math.prod(p.sizes) for p in parts) and all(
        min(p.offsets[d] for p in parts) == 0 for d in range(len(bounds))
    )
    apart = not any(overlap(a, b) for i, a in enumerate(parts) for b in parts[:i])
    boxes = [list(zip(p.offsets, p.sizes, strict=True)) for p in parts]
    assert tiling._corners_cancel(boxes) == (fits and apart)
    assert not fits or tile(parts) == apart


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_record_over_the_limit_is_not_committed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ranks: int) -> None:
    results(tmp_path, lambda program: program.save(1, 10.0), ranks)
    monkeypatch.setattr(save, "MANIFEST_BYTES", 100)

    def body(program: Program) -> str:
        with pytest.raises(PeerError) as caught:
            program.save(2, 20.0)
        return str(caught.value)

    for words in results(tmp_path, body, ranks):
        assert words.startswith(
            "committing checkpoint 2 failed on 1 rank(s): rank 0: CheckpointError: the manifest has"
        )
    assert found(tmp_path, ranks) == (1, 10.0)
