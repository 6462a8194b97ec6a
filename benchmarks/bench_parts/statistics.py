"""Medians and their spread. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import quantiles

from .records import Record, Records

QUIET = 0.1
"""Cores: other programs that use less than this do not count."""


@dataclass(frozen=True)
class Spread:
    """A median and the quartiles around it; all three are the value itself where there is only one."""

    median: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of at least one value."""
        if len(values) == 1:
            return cls(values[0], values[0], values[0], 1)
        low, middle, high = quantiles(values, n=4, method="inclusive")
        return cls(middle, low, high, len(values))


def others_cores(block: Record) -> float | None:
    """Cores that other programs kept busy during a block; None where it could not be seen."""
    seconds = block["others_cpu_seconds"]
    return None if seconds is None else seconds / block["seconds"]


def spread_of_others(blocks: Sequence[Record]) -> Spread | None:
    """`others_cores` over blocks; None where it could not be seen."""
    seen = [cores for cores in map(others_cores, blocks) if cores is not None]
    return Spread.of(seen) if seen else None


def status_of(records: Records) -> str:
    """How a run ended: complete, interrupted or failed; unfinished where nothing says."""
    return next((r["status"] for r in reversed(records) if r["kind"] == "end"), "unfinished")
