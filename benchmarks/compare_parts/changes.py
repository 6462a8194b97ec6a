"""What changed between two measurements of the same quantity, and how sure that is. Pure."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from bench_parts.quantities import Quantity
from bench_parts.statistics import Spread

_RESAMPLES = 2000
FEW = 5
"""Values a side, below which an interval says nothing."""
TOO_FEW = "too few rounds"


@dataclass(frozen=True)
class Change:
    """B against A."""

    name: tuple[str, ...]
    unit: str
    a: Spread
    b: Spread
    ratio: float
    """Median of B over median of A."""
    low: float
    high: float
    """Its 95 % interval, from the rounds of both."""
    verdict: str
    """better, worse, "no change seen", or TOO_FEW."""

    @property
    def worse_by(self) -> float:
        """The part by which it surely got worse: the end of the interval that is nearer to no change; else 0."""
        if self.verdict != "worse":
            return 0.0
        return min(abs(self.low - 1), abs(self.high - 1))


def change(a: Quantity, b: Quantity) -> Change:
    """B against A, of the same name and unit."""
    before, after = median(a.values), median(b.values)
    ratio = after / before if before else float("nan")
    low, high = interval_of_ratio(a.values, b.values)
    return Change(a.name, a.unit, Spread.of(a.values), Spread.of(b.values), ratio, low, high, _verdict(a, b, low, high))


def interval_of_ratio(a: Sequence[float], b: Sequence[float]) -> tuple[float, float]:
    """A 95 % interval of median(b) / median(a), by resampling both (the same resamples each time)."""
    draw = random.Random(0)
    found = []
    for _ in range(_RESAMPLES):
        below = median(draw.choices(a, k=len(a)))
        found.append(median(draw.choices(b, k=len(b))) / below if below else float("nan"))
    found.sort()
    return found[int(0.025 * _RESAMPLES)], found[int(0.975 * _RESAMPLES) - 1]


def _verdict(a: Quantity, b: Quantity, low: float, high: float) -> str:
    if min(len(a.values), len(b.values)) < FEW:
        return TOO_FEW
    if not (low > 1 or high < 1):
        return "no change seen"
    return "better" if (low > 1) == (a.better == "higher") else "worse"
