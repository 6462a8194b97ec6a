"""Weighted sampling with replacement, from one global draw that is computed where it is asked for.

Position p of an epoch gets a uniform number by hashing (seed, epoch, p), and the sample in whose stretch of the summed
weights that number falls. So any position is reached in O(log N), nothing of the draw is stored, and the draw is the
same on any number of ranks.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from dist_toolkit.data.order import Indices, mix
from dist_toolkit.errors import ConfigError
from dist_toolkit.seeding import derive

Floats = npt.NDArray[np.float64]


class WeightedOrder:
    """`num_samples` draws an epoch, in which sample i comes with probability weights[i] / sum(weights).

    Attributes:
        length: draws in an epoch.
    """

    def __init__(self, weights: Floats, num_samples: int, seed: int) -> None:
        self.length, self.seed = num_samples, seed
        self._sums: Floats = np.cumsum(weights)
        self._last = int(np.flatnonzero(weights)[-1])
        self._digest = digest(weights)

    def at(self, epoch: int, positions: Indices) -> Indices:
        """Dataset indices drawn at these positions of `epoch`; same shape. O(number of positions * log N)."""
        bits = mix(positions.astype(np.uint64), derive(self.seed, "weighted", epoch))
        uniform = (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53
        return self.locate(uniform)

    def locate(self, uniform: Floats) -> Indices:
        """The sample in whose stretch of the summed weights each number of 0 to 1 falls; same shape."""
        drawn = np.searchsorted(self._sums, uniform * self._sums[-1], side="right")
        indices: Indices = np.minimum(drawn, self._last).astype(np.int64)
        return indices

    def identity(self) -> dict[str, int | bool | str]:
        """Number of draws, seed, and a digest of the weights."""
        return {"length": self.length, "shuffle": True, "seed": self.seed, "weights": self._digest}


def checked_weights(weights: Any, length: int) -> Floats:
    """`weights` as an array of float64, shape (length,).

    Raises:
        ConfigError: another number of them, a negative or infinite one, or none above zero.
    """
    array = as_array("weights", weights).astype(np.float64)
    if array.shape != (length,):
        raise ConfigError(
            f"weights has shape {tuple(array.shape)}, but the data set has {length} samples; pass one weight a sample"
        )
    if not np.isfinite(array).all() or (array < 0).any():
        wrong = int(np.flatnonzero(~(np.isfinite(array) & (array >= 0)))[0])
        raise ConfigError(
            f"weights[{wrong}]={array[wrong]} is not a number from 0 up; pass finite weights of 0 or more"
        )
    with np.errstate(over="ignore"):
        total = float(array.sum())
    if total == 0 or not np.isfinite(total):
        raise ConfigError(f"the weights add up to {total}; at least one must be above 0, and their sum finite")
    return array


def as_array(name: str, given: Any) -> npt.NDArray[Any]:
    """A sequence, an array or a tensor of numbers as an array.

    Raises:
        ConfigError: it holds something else.
    """
    if isinstance(given, torch.Tensor):
        given = given.detach().cpu().tolist()
    try:
        array = np.asarray(given)
    except ValueError:
        array = np.empty(0, dtype=object)
    if array.dtype.kind not in "biuf":
        raise ConfigError(f"{name} must be numbers, one a sample; pass a list, an array or a tensor of them")
    return array


def digest(array: npt.NDArray[Any]) -> str:
    """Twelve hexadecimal digits that stand for the array's values."""
    return hashlib.blake2b(np.ascontiguousarray(array).tobytes(), digest_size=6).hexdigest()
