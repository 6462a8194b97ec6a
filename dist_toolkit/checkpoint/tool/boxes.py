"""Whether two boxes of one tensor hold the same bytes where they overlap, however each was cut. No tensor is made."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, product

from dist_toolkit.checkpoint.manifest import Chunk
from dist_toolkit.storage import FileReader

_SLICE = 1 << 20


@dataclass(frozen=True)
class Overlap:
    """The box that two chunks share, by its offsets and sizes in the whole tensor."""

    offsets: tuple[int, ...]
    sizes: tuple[int, ...]


def overlap(a: Chunk, b: Chunk) -> Overlap | None:
    """What two chunks of one tensor share; None if nothing."""
    begins = tuple(max(x, y) for x, y in zip(a.offsets, b.offsets, strict=True))
    ends = tuple(min(x + m, y + n) for x, m, y, n in zip(a.offsets, a.sizes, b.offsets, b.sizes, strict=True))
    sizes = tuple(end - begin for begin, end in zip(begins, ends, strict=True))
    return Overlap(begins, sizes) if all(size > 0 for size in sizes) else None


def tile(chunks: Sequence[Chunk]) -> bool:
    """Whether no two overlap: as they have the tensor's number of elements together, nothing is then missing."""
    boxes = [list(zip(chunk.offsets, chunk.sizes, strict=True)) for chunk in chunks]
    cut = [d for d in range(len(boxes[0])) if any(box[d] != boxes[0][d] for box in boxes)] if boxes else []
    if len(cut) == 1:  # the usual case, in which neighbours are enough
        spans = sorted(box[cut[0]] for box in boxes)
        return all(begin + size <= after for (begin, size), (after, _) in pairwise(spans))
    return not any(overlap(a, b) for i, a in enumerate(chunks) for b in chunks[:i])


def runs(shared: Overlap, chunks: Sequence[Chunk], item: int) -> Iterator[tuple[tuple[int, ...], int]]:
    """(where it begins in the file of each chunk, its length) for each run of bytes of the box.

    A run is as long as the bytes lie side by side in every chunk; runs come in the order of the elements. `item` is the
    number of bytes of an element.
    """
    inner = len(shared.sizes)  # dimensions from here on are whole in every chunk
    while inner and all(c.sizes[inner - 1] == shared.sizes[inner - 1] for c in chunks):
        inner -= 1
    outer = max(inner - 1, 0)  # one more may be cut: its rows still lie side by side
    length = math.prod(shared.sizes[outer:]) * item
    for index in product(*(range(size) for size in shared.sizes[:outer])):
        place = [offset + i for offset, i in zip(shared.offsets, index, strict=False)] + list(shared.offsets[outer:])
        yield tuple(chunk.begin + _position(chunk, place) * item for chunk in chunks), length


def same_bytes(a: FileReader, b: FileReader, begins: tuple[int, ...], length: int) -> bool:
    """Compare a run, a slice at a time."""
    for start in range(0, length, _SLICE):
        count = min(_SLICE, length - start)
        left, right = bytearray(count), bytearray(count)
        a.read_into(begins[0] + start, memoryview(left))
        b.read_into(begins[1] + start, memoryview(right))
        if left != right:
            return False
    return True


def _position(chunk: Chunk, place: Sequence[int]) -> int:
    """The number of elements of the chunk before this place of the tensor."""
    position = 0
    for size, offset, where in zip(chunk.sizes, chunk.offsets, place, strict=True):
        position = position * size + where - offset
    return position
