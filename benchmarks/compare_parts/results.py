"""The results of a run, read from its folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
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

    @cached_property
    def failed(self) -> dict[str, str]:
        """What failed in it, and why, where the benchmark goes on after a failure."""
        found: dict[str, str] = self.benchmark.as_json(self.records).get("failed", {})
        return found

    @property
    def quantities(self) -> Sequence[Quantity]:
        """What it measured."""
        return self.benchmark.quantities(self.records)


def read(path: Path) -> Result:
    """The run whose folder, or results.jsonl, this is. Raises UsageError where there is none."""
    return Result(str(path), *read_result(path))


@dataclass(frozen=True)
class Matched:
    """The quantities of two runs, by name and unit."""

    both: tuple[tuple[Quantity, Quantity], ...]
    """In the order of the first run."""
    only_a: tuple[Quantity, ...]
    only_b: tuple[Quantity, ...]


def match(a: Sequence[Quantity], b: Sequence[Quantity]) -> Matched:
    """What both have, and what only one of them has."""
    of_a, of_b = ({(each.name, each.unit): each for each in side} for side in (a, b))
    return Matched(
        both=tuple((each, of_b[key]) for key, each in of_a.items() if key in of_b),
        only_a=tuple(each for key, each in of_a.items() if key not in of_b),
        only_b=tuple(each for key, each in of_b.items() if key not in of_a),
    )
