"""The results of a run, read from its folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench_parts.driver import Benchmark
from bench_parts.quantities import Quantity
from bench_parts.records import Record, Records
from bench_parts.registry import read_result
from bench_parts.statistics import status_of


@dataclass(frozen=True)
class Result:
    """One run of a benchmark."""

    label: str
    benchmark: Benchmark
    records: Records

    @property
    def machine(self) -> Record:
        """Its first record."""
        return self.records[0]

    @property
    def status(self) -> str:
        """How it ended."""
        return status_of(self.records)


def read(path: Path) -> Result:
    """The run whose folder, or results.jsonl, this is. Raises UsageError where there is none."""
    return Result(str(path), *read_result(path))


def shared(a: Sequence[Quantity], b: Sequence[Quantity]) -> list[tuple[Quantity, Quantity]]:
    """The quantities of the same name and unit, in the order of `a`."""
    others = {(each.name, each.unit): each for each in b}
    return [(each, others[each.name, each.unit]) for each in a if (each.name, each.unit) in others]
