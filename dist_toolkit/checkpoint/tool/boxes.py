"""Whether two boxes of one tensor hold the same bytes where they overlap, however each was cut. No tensor is made."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import product

from dist_toolkit.checkpoint.manifest import Chunk
from dist_toolkit.checkpoint.tiling import Overlap
from dist_toolkit.storage import FileReader

_SLICE = 1 << 20


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
