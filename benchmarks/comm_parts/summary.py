"""Records -> medians, spreads and bandwidths. Pure."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from bench_parts.others import Others
from bench_parts.quantities import Quantity
from bench_parts.records import Record, Records
from bench_parts.statistics import Spread, status_of
from bench_parts.words import binary
from bench_parts.work import Work, with_work

from .tables import OPERATIONS, bandwidths

WORK = (Work("nproc"), Work("nodes"), Work("dtype"), Work("iterations"))
"""A block of few operations holds more of what comes before and behind them."""

Key = tuple[str, str, str, int]
"""Backend, scope, operation, size."""


@dataclass(frozen=True)
class CaseSummary:
    """An operation of one size."""

    operation: str
    size: int
    bytes: int
    """What was sent: `size`, less what could not be dealt out to all ranks equally."""
    iterations: int
    """Operations in a block."""
    right: bool
    time_us: Spread
    """Of the slowest rank."""
    mean_us: float
    """The median of the mean over ranks."""
    algorithm: Spread
    """Algorithm bandwidth in GB/s."""
    bus: Spread
    """Bus bandwidth in GB/s."""


@dataclass(frozen=True)
class Part:
    """A backend among the ranks of a scope."""

    backend: str
    scope: str
    ranks: int
    cases: tuple[CaseSummary, ...]

    @property
    def operations(self) -> tuple[str, ...]:
        """Those that were measured, in the order of the options."""
        return tuple(dict.fromkeys(case.operation for case in self.cases))

    @property
    def sizes(self) -> tuple[int, ...]:
        """Those that were measured, from the smallest."""
        return tuple(sorted({case.size for case in self.cases}))

    def of(self, operation: str) -> list[CaseSummary]:
        """Its cases, by size."""
        return sorted((case for case in self.cases if case.operation == operation), key=lambda case: case.size)

    @property
    def moving(self) -> tuple[str, ...]:
        """Operations that move something: with one rank, those that copy from one buffer into another."""
        return tuple(name for name in self.operations if self.ranks > 1 or not OPERATIONS[name].in_place)

    def best(self, operation: str) -> CaseSummary:
        """The case of the largest bandwidth."""
        return max(self.of(operation), key=lambda case: case.algorithm.median)


@dataclass(frozen=True)
class Summary:
    """A run."""

    status: str
    parts: tuple[Part, ...]
    rounds: int
    """That have a block."""
    others_cores: Others | None
    """Cores that other programs kept busy while the ranks waited; None where it could not be seen."""


def summarise(records: Records) -> Summary:
    """Everything that was measured until the records end."""
    blocks: dict[Key, list[Record]] = {}
    for record in records:
        if record["kind"] == "block":
            blocks.setdefault(_key(record), []).append(record)
    cases = {_key(record): record for record in records if record["kind"] == "case"}
    idle = {f"before round {r['round']}": r["others_cores"] for r in records if r["kind"] == "idle"}
    among = dict.fromkeys(key[:2] for key in cases if key in blocks)
    return Summary(
        status=status_of(records),
        parts=tuple(_part(backend, scope, cases, blocks) for backend, scope in among),
        rounds=max((record["round"] for found in blocks.values() for record in found), default=0),
        others_cores=Others.of(idle),
    )


def as_json(records: Records) -> dict[str, Any]:
    """The summary as plain values."""
    return asdict(summarise(records))


def quantities(records: Records) -> list[Quantity]:
    """The time of each operation and size."""
    found: dict[Key, list[float]] = {}
    for record in records:
        if record["kind"] == "block":
            found.setdefault(_key(record), []).append(1e6 * record["seconds"])
    numbers = (
        Quantity((backend, scope, operation, binary(size)), "µs", "lower", tuple(times))
        for (backend, scope, operation, size), times in sorted(found.items())
    )
    return with_work(numbers, records[0]["options"], WORK)


def wrong(records: Records) -> list[str]:
    """The cases whose result was not what it must be."""
    return [
        f"{r['operation']} of {binary(r['size'])} by {r['backend']} {r['scope']}"
        for r in records
        if r["kind"] == "case" and not r["right"]
    ]


def _key(record: Record) -> Key:
    return record["backend"], record["scope"], record["operation"], record["size"]


def _part(backend: str, scope: str, cases: dict[Key, Record], blocks: dict[Key, list[Record]]) -> Part:
    mine = [key for key in cases if key[:2] == (backend, scope) and key in blocks]
    return Part(
        backend=backend,
        scope=scope,
        ranks=cases[mine[0]]["ranks"],
        cases=tuple(_case(cases[key], blocks[key]) for key in mine),
    )


def _case(case: Record, blocks: list[Record]) -> CaseSummary:
    pairs = [bandwidths(case["operation"], case["ranks"], case["bytes"], block["seconds"]) for block in blocks]
    return CaseSummary(
        operation=case["operation"],
        size=case["size"],
        bytes=case["bytes"],
        iterations=case["iterations"],
        right=case["right"],
        time_us=Spread.of([1e6 * block["seconds"] for block in blocks]),
        mean_us=Spread.of([1e6 * block["mean_seconds"] for block in blocks]).median,
        algorithm=Spread.of([algorithm for algorithm, _ in pairs]),
        bus=Spread.of([bus for _, bus in pairs]),
    )
