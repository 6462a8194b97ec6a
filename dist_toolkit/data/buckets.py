"""Batches of samples of near-equal length, with no more order given up than it takes.

The shuffled epoch is cut into windows of 50 global batches. In a window the samples are sorted by length and cut into
batches, and the batches are shuffled. A window follows from the epoch's order alone, so a resume computes it again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dist_toolkit.data.order import GlobalOrder, Indices
from dist_toolkit.data.weighted import as_array, digest
from dist_toolkit.errors import ConfigError
from dist_toolkit.seeding import derive

WINDOW = 50
"""Global batches among which lengths are sorted: about 2 % of padding is left where lengths are spread evenly."""


class BucketedOrder:
    """A shuffled (or plain) order, rearranged so that each global batch holds samples of near-equal length.

    What does not fill a batch at the end of an epoch stays a random part of the data, and stays last.

    Attributes:
        length: samples in an epoch.
    """

    def __init__(self, order: GlobalOrder, lengths: Indices, global_batch_size: int) -> None:
        self._order, self._lengths, self._batch = order, lengths, global_batch_size
        self.length = order.length
        self._window = WINDOW * global_batch_size
        self._digest = digest(lengths)
        self._kept: tuple[tuple[int, int], Indices] | None = None

    def at(self, epoch: int, positions: Indices) -> Indices:
        """Dataset indices at these positions of `epoch`; same shape. O(window) for each window that is entered."""
        result = np.empty_like(positions)
        windows = positions // self._window
        for window in np.unique(windows).tolist():
            here = windows == window
            result[here] = self._arranged(epoch, window)[positions[here] - window * self._window]
        return result

    def identity(self) -> dict[str, int | bool | str]:
        """The order's, and a digest of the lengths."""
        return {**self._order.identity(), "lengths": self._digest}

    def _arranged(self, epoch: int, window: int) -> Indices:
        if self._kept is None or self._kept[0] != (epoch, window):
            self._kept = (epoch, window), self._arrange(epoch, window)
        return self._kept[1]

    def _arrange(self, epoch: int, window: int) -> Indices:
        first = window * self._window
        samples = self._order.indices(epoch, first, min(first + self._window, self.length))
        whole = len(samples) // self._batch
        filled, rest = np.split(samples, [whole * self._batch])
        batches = self._sorted(filled).reshape(whole, self._batch)
        if self._order.shuffle:
            key = derive(self._order.seed, "buckets", epoch, window)
            batches = batches[GlobalOrder(whole, True, key).indices(0, 0, whole)]
        return np.concatenate([batches.reshape(-1), self._sorted(rest)])

    def _sorted(self, samples: Indices) -> Indices:
        return samples[np.argsort(self._lengths[samples], kind="stable")]


def checked_lengths(lengths: Sequence[int] | Callable[[int], int] | Any, count: int) -> Indices:
    """The lengths of all samples, shape (count,); a callable is asked once for each index.

    Raises:
        ConfigError: another number of them, or one that is not a whole number from 0 up.
    """
    given = [lengths(index) for index in range(count)] if callable(lengths) else lengths
    array = as_array("lengths", given)
    if array.shape != (count,):
        raise ConfigError(
            f"lengths has shape {tuple(array.shape)}, but the data set has {count} samples; pass one length a sample"
        )
    if array.dtype.kind not in "iu" or (array < 0).any():
        raise ConfigError(f"lengths must be whole numbers of 0 or more, not {array.dtype}s like {array[:3].tolist()}")
    return array.astype(np.int64)
