"""Medians and their spread. Pure."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist, median, quantiles

from .records import Record, Records

QUIET = 0.1
"""Cores: other programs that use less than this do not count."""

FEWEST = 6
"""Rounds of which a median has a 95 % interval: between the least and the most of 5 it lies in 93.75 % of all cases."""

_RESAMPLES = 2000
_NORMAL = NormalDist().inv_cdf(0.975)


@dataclass(frozen=True)
class Spread:
    """A median and the quartiles around it."""

    median: float
    low: float | None
    high: float | None
    """None of a single value, which has no quartiles."""
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of at least one value."""
        if len(values) == 1:
            return cls(values[0], None, None, 1)
        low, middle, high = quantiles(values, n=4, method="inclusive")
        return cls(middle, low, high, len(values))


@dataclass(frozen=True)
class Paired:
    """A quantity of each round, of two blocks in it."""

    spread: Spread
    low: float | None
    high: float | None
    """The 95 % interval of the median, by resampling the rounds (the same resamples each time); None of fewer than
    FEWEST rounds."""

    @classmethod
    def of(cls, values: Sequence[float]) -> Paired:
        """Of at least one value."""
        return cls(Spread.of(values), *(interval_of_median(values) if len(values) >= FEWEST else (None, None)))


def interval_of_median(values: Sequence[float]) -> tuple[float, float]:
    """A 95 % interval of the median of `values` (at least one): percentiles of the medians of resampled values."""
    draw = random.Random(0)
    medians = sorted(median(draw.choices(values, k=len(values))) for _ in range(_RESAMPLES))
    return medians[int(0.025 * _RESAMPLES)], medians[int(0.975 * _RESAMPLES) - 1]


def ratios(above: Mapping[int, float], below: Mapping[int, float]) -> Paired | None:
    """Quotients of two quantities by round, of the rounds that have both; None where there is no such round."""
    found = [value / below[number] for number, value in above.items() if number in below]
    return Paired.of(found) if found else None


def others_cores(block: Record) -> float | None:
    """Cores that other programs kept busy during a block; None where it could not be seen."""
    seconds = block["others_cpu_seconds"]
    return None if seconds is None else seconds / block["seconds"]


def spread_of_others(blocks: Sequence[Record]) -> Spread | None:
    """`others_cores` over blocks; None where it could not be seen."""
    seen = [cores for cores in map(others_cores, blocks) if cores is not None]
    return Spread.of(seen) if seen else None


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """The 95 % interval of a share of at least one trial: Wilson's score interval, which holds for shares of 0 and 1.

    E. B. Wilson, Probable Inference, the Law of Succession, and Statistical Inference, Journal of the American
    Statistical Association 22 (1927), 209-212; recommended for few trials by L. D. Brown, T. T. Cai and A. DasGupta,
    Interval Estimation for a Binomial Proportion, Statistical Science 16 (2001), 101-133.
    """
    share, square = successes / trials, _NORMAL**2
    middle = (share + square / (2 * trials)) / (1 + square / trials)
    half = _NORMAL * sqrt(share * (1 - share) / trials + square / (4 * trials**2)) / (1 + square / trials)
    return max(0.0, middle - half), min(1.0, middle + half)


def status_of(records: Records) -> str:
    """How a run ended: complete, interrupted or failed; unfinished where nothing says."""
    return next((r["status"] for r in reversed(records) if r["kind"] == "end"), "unfinished")
