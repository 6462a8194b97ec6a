"""The boxes that make up a tensor: what two of them share, and whether all of them cover it once. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol


class Box(Protocol):
    """A part of a tensor: where it begins and how long it is in each dimension."""

    @property
    def offsets(self) -> tuple[int, ...]:
        """Where it begins."""
        ...

    @property
    def sizes(self) -> tuple[int, ...]:
        """How long it is."""
        ...


@dataclass(frozen=True)
class Overlap:
    """The box that two chunks share, by its offsets and sizes in the whole tensor."""

    offsets: tuple[int, ...]
    sizes: tuple[int, ...]


def overlap(a: Box, b: Box) -> Overlap | None:
    """What two chunks of one tensor share; None if nothing."""
    begins = tuple(max(x, y) for x, y in zip(a.offsets, b.offsets, strict=True))
    ends = tuple(min(x + m, y + n) for x, m, y, n in zip(a.offsets, a.sizes, b.offsets, b.sizes, strict=True))
    sizes = tuple(end - begin for begin, end in zip(begins, ends, strict=True))
    return Overlap(begins, sizes) if all(size > 0 for size in sizes) else None


def tile(chunks: Sequence[Box]) -> bool:
    """Whether no two overlap: as they have the tensor's number of elements together, nothing is then missing."""
    boxes = [list(zip(chunk.offsets, chunk.sizes, strict=True)) for chunk in chunks]
    cut = [d for d in range(len(boxes[0])) if any(box[d] != boxes[0][d] for box in boxes)] if boxes else []
    if len(cut) == 1:  # the usual case, in which neighbours are enough
        spans = sorted(box[cut[0]] for box in boxes)
        return all(begin + size <= after for (begin, size), (after, _) in pairwise(spans))
    ranges = _ranges(chunks)  # as ZeRO cuts
    if ranges is not None:
        return all(end <= after for (_, end), (after, _) in pairwise(sorted(ranges)))
    return not any(overlap(a, b) for i, a in enumerate(chunks) for b in chunks[:i])


def _ranges(chunks: Sequence[Box]) -> list[tuple[int, int]] | None:
    """Begin and end of each box in row-major order of the tensor that they make up; None if one is not such a range."""
    dims = range(len(chunks[0].offsets)) if chunks else range(0)
    shape = [max(chunk.offsets[d] + chunk.sizes[d] for chunk in chunks) for d in dims]
    found = []
    for chunk in chunks:
        cut = [d for d in dims if chunk.sizes[d] != shape[d]]
        if cut and any(chunk.sizes[d] != 1 for d in range(cut[-1])):
            return None
        begin = 0
        for offset, length in zip(chunk.offsets, shape, strict=True):
            begin = begin * length + offset
        found.append((begin, begin + math.prod(chunk.sizes)))
    return found
