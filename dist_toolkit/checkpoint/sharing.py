"""Which rank writes what: shares that several ranks hold are written once. Pure."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from dist_toolkit.checkpoint.sound import BITS
from dist_toolkit.checkpoint.tiling import tile


class Held(NamedTuple):
    """A box of tensor `name` that a rank holds; `dtype` by its safetensors name, `shape` of the whole tensor."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offsets: tuple[int, ...]
    sizes: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """In memory and in the file."""
        return math.prod(self.sizes) * BITS[self.dtype] // 8


class Place(NamedTuple):
    """A box of a tensor."""

    offsets: tuple[int, ...]
    sizes: tuple[int, ...]


def share_out(held: Sequence[Sequence[Held]]) -> list[list[int]]:
    """For each rank, the positions in its list of what it is to write. Same input, same answer, on every rank.

    What one rank alone holds is its own to write. The rest goes, largest first, to the holder with least to write.

    Args:
        held: by rank.

    Raises:
        ValueError: ranks hold different tensors under one name, or not all of one; names it.
    """
    holders: dict[tuple[str, Place], list[tuple[int, int]]] = defaultdict(list)
    for rank, boxes in enumerate(held):
        for position, box in enumerate(boxes):
            holders[box.name, Place(box.offsets, box.sizes)].append((rank, position))
    _check(held, holders)
    chosen: list[list[int]] = [[] for _ in held]
    burden = [0] * len(held)
    common: list[tuple[int, list[tuple[int, int]]]] = []
    for places in holders.values():
        rank, position = places[0]
        size = held[rank][position].bytes
        if len(places) > 1:
            common.append((size, places))
        else:
            chosen[rank].append(position)
            burden[rank] += size
    for size, places in sorted(common, key=lambda entry: -entry[0]):
        rank, position = min(places, key=lambda place: (burden[place[0]], place[0]))
        chosen[rank].append(position)
        burden[rank] += size
    return [sorted(positions) for positions in chosen]


def _check(held: Sequence[Sequence[Held]], boxes: Iterable[tuple[str, Place]]) -> None:
    """Every name is one tensor, the same on all ranks that have it, and its boxes make it up."""
    first: dict[str, tuple[int, Held]] = {}
    for rank, mine in enumerate(held):
        for box in mine:
            where, other = first.setdefault(box.name, (rank, box))
            if (other.dtype, other.shape) != (box.dtype, box.shape):
                raise ValueError(
                    f"{box.name} is {_words(other)} on rank {where} and {_words(box)} on rank {rank}; "
                    "what is saved under one name must be one tensor"
                )
    parts: dict[str, list[Place]] = defaultdict(list)
    for name, place in boxes:
        parts[name].append(place)
    for name, places in parts.items():
        shape = first[name][1].shape
        if len(places) == 1 and places[0].sizes == shape:
            continue
        covered = sum(math.prod(place.sizes) for place in places)
        if covered != math.prod(shape) or not tile([place for place in places if math.prod(place.sizes)]):
            listed = ", ".join(f"{list(place.sizes)} at {list(place.offsets)}" for place in places[:4])
            raise ValueError(f"{name} of shape {list(shape)} is not what the ranks hold of it together: {listed}")


def _words(box: Held) -> str:
    return f"{box.dtype} {list(box.shape)}"
