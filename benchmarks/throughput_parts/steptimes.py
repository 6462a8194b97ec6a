"""How long steps took: what a block keeps of them, and quantiles over the blocks of a run. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

KEPT = 100  # times that a block keeps
FEW = 20  # steps, below which the time that 95 % of them do not exceed is that of the slowest


def quantile(values: Sequence[float], of: float) -> float:
    """By the nearest rank; of at least one value."""
    return sorted(values)[max(0, math.ceil(of * len(values)) - 1)]


def kept(times: Sequence[float]) -> list[float]:
    """The times of a block's steps, rising; of more than 100 those at its 0.5, 1.5 ... 99.5 % ranks."""
    if len(times) <= KEPT:
        return sorted(times)
    ordered = sorted(times)
    return [ordered[int((part + 0.5) * len(ordered) / KEPT)] for part in range(KEPT)]


def middle_and_slow(blocks: Sequence[Sequence[float]]) -> tuple[float, float | None]:
    """The median step and the one that 95 % do not exceed, of all steps of blocks with equally many; the second is
    None where there are fewer than 20 steps.
    """
    pooled = [time for block in blocks for time in block]
    return quantile(pooled, 0.5), quantile(pooled, 0.95) if len(pooled) >= FEW else None
