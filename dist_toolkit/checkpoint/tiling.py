"""The boxes that make up a tensor: what two of them share, and whether all of them cover it once. Pure."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from typing import Protocol

_FEW = 64
"""Up to so many boxes are compared pair by pair."""
_CORNERED = 4
"""More boxes may be cut in so many dimensions: a mesh of devices has fewer, and the work doubles with each."""


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
    """Whether no two overlap: as they have the tensor's number of elements together, nothing is then missing.

    Takes time that is linear in the number of boxes, but for sorting: more than a few that are cut in more than
    `_CORNERED` dimensions, and are no ranges, are taken for overlapping.
    """
    boxes = [list(zip(chunk.offsets, chunk.sizes, strict=True)) for chunk in chunks]
    cut = [d for d in range(len(boxes[0])) if any(box[d] != boxes[0][d] for box in boxes)] if boxes else []
    if len(cut) == 1:  # the usual case, in which neighbours are enough
        spans = sorted(box[cut[0]] for box in boxes)
        return all(begin + size <= after for (begin, size), (after, _) in pairwise(spans))
    ranges = _ranges(chunks)  # as ZeRO cuts
    if ranges is not None:
        return all(end <= after for (_, end), (after, _) in pairwise(sorted(ranges)))
    if len(chunks) <= _FEW:
        return not any(overlap(a, b) for i, a in enumerate(chunks) for b in chunks[:i])
    return len(cut) <= _CORNERED and _corners_cancel([[box[d] for d in cut] for box in boxes])


def _corners_cancel(boxes: Sequence[Sequence[tuple[int, int]]]) -> bool:
    """Whether the boxes make up one box, in time linear in their number.

    A box is the sum of the orthants that begin at its corners, with the sign of a corner by the number of its upper
    ends. Orthants are linearly independent: sums of boxes are alike if and only if these signs are, at every corner.
    """
    whole = [(min(b for b, _ in spans), max(b + n for b, n in spans)) for spans in zip(*boxes, strict=True)]
    signs: dict[tuple[int, ...], int] = defaultdict(int)
    for ends, sign in ((((b, b + n) for b, n in box), 1) for box in boxes):
        _add_corners(signs, tuple(ends), sign)
    _add_corners(signs, tuple(whole), -1)
    return not signs


def _add_corners(signs: dict[tuple[int, ...], int], ends: tuple[tuple[int, int], ...], sign: int) -> None:
    for upper in product((0, 1), repeat=len(ends)):
        corner = tuple(pair[which] for pair, which in zip(ends, upper, strict=True))
        signs[corner] += -sign if sum(upper) % 2 else sign
        if not signs[corner]:
            del signs[corner]


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
