"""What changed between two measurements of the same quantity, and how sure that is. Pure."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import inf, isfinite
from statistics import median
from typing import Any

from bench_parts.quantities import Quantity
from bench_parts.resume import differences
from bench_parts.statistics import FEWEST, Spread

_RESAMPLES = 2000
TOO_FEW = "too few rounds"
OTHER_WORK = "other work"


@dataclass(frozen=True)
class Change:
    """B against A."""

    name: tuple[str, ...]
    unit: str
    a: Spread
    b: Spread
    ratio: float | None
    """Median of B over median of A; None where that is 0, and of other work."""
    low: float | None
    high: float | None
    """Its 95 % interval, from the rounds of both; of 0 over 0 taken as 1, and of another value over 0 as infinity. None
    for numbers of the whole run, of other work and of too few rounds."""
    verdict: str
    """better, worse, "no change seen", TOO_FEW, OTHER_WORK, or "no interval" of numbers of the whole run, which are not
    judged."""
    other_work: tuple[str, ...] = ()
    """Options, in words, of which the work differs."""

    @property
    def worse_by(self) -> float:
        """The part by which it surely got worse: the end of the interval that is nearer to no change; else 0."""
        if self.verdict != "worse" or self.low is None or self.high is None:
            return 0.0
        return min(abs(self.low - 1), abs(self.high - 1))

    def as_json(self) -> dict[str, Any]:
        """Plain values; None for a ratio and an interval that do not exist, and for an end that is infinite."""
        plain = asdict(self)
        for name in ("ratio", "low", "high"):
            if self.ratio is None or plain[name] is None or not isfinite(plain[name]):
                plain[name] = None
        return plain


def change(a: Quantity, b: Quantity) -> Change:
    """B against A, of the same name and unit."""
    before, after = median(a.values), median(b.values)
    ratio = after / before if before else None
    spreads = (a.name, a.unit, Spread.of(a.values), Spread.of(b.values))
    if other := tuple(differences({"options": a.work}, {"options": b.work})):
        return Change(*spreads, None, None, None, OTHER_WORK, other)
    both = (*spreads, ratio)
    if a.once:
        return Change(*both, None, None, "no interval")
    if min(len(a.values), len(b.values)) < FEWEST:
        return Change(*both, None, None, TOO_FEW)
    low, high = interval_of_ratio(a.values, b.values)
    return Change(*both, low, high, _verdict(a, low, high))


def interval_of_ratio(a: Sequence[float], b: Sequence[float]) -> tuple[float, float]:
    """A 95 % interval of median(b) / median(a), by resampling both (the same resamples each time); see Change."""
    draw = random.Random(0)
    found = []
    for _ in range(_RESAMPLES):
        below = median(draw.choices(a, k=len(a)))
        above = median(draw.choices(b, k=len(b)))
        found.append(above / below if below else inf if above else 1.0)
    found.sort()
    return found[int(0.025 * _RESAMPLES)], found[int(0.975 * _RESAMPLES) - 1]


def _verdict(a: Quantity, low: float, high: float) -> str:
    if not (low > 1 or high < 1):
        return "no change seen"
    return "better" if (low > 1) == (a.better == "higher") else "worse"
