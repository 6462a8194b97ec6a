"""The global sample order: a function of (length, seed, epoch) alone, so it is the same on any number of ranks.

A shuffled epoch is a keyed permutation of 0..length-1, computed where it is asked for: nothing is stored, and any
position is reached in O(1). The permutation is the alternating mixed-radix Feistel network of Black and Rogaway,
"Ciphers with Arbitrary Finite Domains" (CT-RSA 2002), section 5, on the smallest near-square domain a*b >= length,
with cycle-walking for the fewer than sqrt(length)+1 values past the end. The round function is SplitMix64's finaliser
(Steele, Lea, Flood, OOPSLA 2014).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from dist_toolkit.seeding import derive

Indices = npt.NDArray[np.int64]
_Words = npt.NDArray[np.uint64]
_ROUNDS = 8


class Order(Protocol):
    """Which sample stands at which position of an epoch: the same on every rank, and a function of the epoch."""

    @property
    def length(self) -> int:
        """Positions in an epoch."""
        ...

    def at(self, epoch: int, positions: Indices) -> Indices:
        """Dataset indices at these positions of `epoch`; same shape."""
        ...

    def identity(self) -> dict[str, int | bool | str]:
        """What must be the same on a resume for the order to be the same."""
        ...


@dataclass(frozen=True)
class GlobalOrder:
    """The order in which the samples of a data set are taken, epoch by epoch.

    Attributes:
        length: number of samples, at least 0.
        shuffle: a new permutation every epoch, or 0, 1, 2, ... each time.
        seed: any integer (it is hashed).
    """

    length: int
    shuffle: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if self.length < 0:
            raise ValueError(f"length={self.length} is negative")

    def indices(self, epoch: int, start: int, stop: int) -> Indices:
        """Dataset indices at positions start..stop-1 of `epoch`; shape (stop - start,). O(stop - start).

        Raises:
            IndexError: not 0 <= start <= stop <= length.
        """
        if not 0 <= start <= stop <= self.length:
            raise IndexError(f"positions {start} to {stop} are not in an epoch of {self.length} samples")
        return self.at(epoch, np.arange(start, stop, dtype=np.int64))

    def at(self, epoch: int, positions: Indices) -> Indices:
        """Dataset indices at these positions of `epoch`, each in 0..length-1; same shape. O(number of positions)."""
        if not self.shuffle or self.length < 2:
            return positions
        return _permute(positions, self.length, derive(self.seed, "order", epoch))

    def identity(self) -> dict[str, int | bool | str]:
        """Length, shuffling and seed."""
        return {"length": self.length, "shuffle": self.shuffle, "seed": self.seed}


def mix(values: _Words, key: int) -> _Words:
    """64 random-looking bits for each of `values`, by a keyed hash; same shape."""
    z: Any = values * np.uint64(0x9E3779B97F4A7C15) + np.uint64(key)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: _Words = z ^ (z >> np.uint64(31))
    return mixed


def _permute(positions: Indices, length: int, key: int) -> Indices:
    a = math.isqrt(length - 1) + 1
    b = -(-length // a)
    keys = [derive(key, round_number) for round_number in range(_ROUNDS)]
    result = _feistel(positions.astype(np.uint64), a, b, keys)
    outside = np.flatnonzero(result >= length)
    while outside.size:
        result[outside] = _feistel(result[outside], a, b, keys)
        outside = outside[result[outside] >= length]
    return result.astype(np.int64)


def _feistel(values: _Words, a: int, b: int, keys: list[int]) -> _Words:
    left, right = values % np.uint64(a), values // np.uint64(a)
    for number, key in enumerate(keys):
        if number % 2 == 0:
            left = (left + mix(right, key) % np.uint64(a)) % np.uint64(a)
        else:
            right = (right + mix(left, key) % np.uint64(b)) % np.uint64(b)
    mixed: _Words = right * np.uint64(a) + left
    return mixed
