"""The part of the report about a backend among the ranks of a scope: figures and tables. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from bench_parts.figures import Figure, Lines, Value
from bench_parts.markdown import row
from bench_parts.spreads import quartiles
from bench_parts.words import binary, number

from .prose import title
from .summary import CaseSummary, Part
from .tables import OPERATIONS

_NOTHING = "-"


def section(part: Part, setup: Mapping[str, Any]) -> list[str | Figure]:
    """Bandwidth and time over size, an overview, and a table for each operation."""
    kind = "bus" if part.ranks > 1 else "algorithm"
    figures: list[str | Figure] = []
    if part.moving:
        figures.append(_lines(part, setup, "bandwidth", part.moving, kind, f"{kind} bandwidth in GB/s"))
    figures.append(_lines(part, setup, "time", part.operations, "time_us", "time in µs"))
    tables = (_table(part, operation) for operation in part.operations)
    return [f"## {title(part, setup)}", *figures, _overview(part, kind), *tables]


def _lines(part: Part, setup: Mapping[str, Any], stem: str, operations: Iterable[str], value: str, y: str) -> Lines:
    series = tuple(
        (
            operation,
            tuple((float(case.size), Value.of(getattr(case, value))) for case in part.of(operation)),
        )
        for operation in operations
    )
    name = f"{stem}-{part.backend}-{part.scope}"
    return Lines(name, title(part, setup), "size", y, series, log_x=True, log_y=True)


def _overview(part: Part, kind: str) -> str:
    """Sizes by operations."""
    titles = part.operations
    lines = [
        f"Medians: time in µs, and {kind} bandwidth in GB/s.",
        "",
        row("size", *(f"{name} µs" for name in titles), *(f"{name} GB/s" for name in titles)),
        "|---:|" + "---:|" * (2 * len(titles)),
    ]
    for size in part.sizes:
        cases = {case.operation: case for case in part.cases if case.size == size}
        times = (number(cases[name].time_us.median) if name in cases else "" for name in part.operations)
        lines.append(row(binary(size), *times, *(_bandwidth(part, cases.get(name)) for name in part.operations)))
    return "\n".join(lines)


def _bandwidth(part: Part, case: CaseSummary | None) -> str:
    if case is None:
        return ""
    if case.operation not in part.moving:
        return _NOTHING
    return number((case.bus if part.ranks > 1 else case.algorithm).median)


def _table(part: Part, operation: str) -> str:
    spec = OPERATIONS[operation]
    bus = f"busbw = algbw x {spec.formula} = algbw x {number(spec.factor(part.ranks))}"
    if part.ranks == 1:
        bus = "with one rank there is nothing to do" if spec.in_place else "with one rank it is copied, without a bus"
    lines = [
        f"**{operation}**: S is the size of {spec.of}; {bus}",
        "",
        row("size", "time in µs", "quartiles", "mean over ranks", "algbw GB/s", "busbw GB/s", "quartiles",
            "operations a block", "result"),
        "|" + "---:|" * 8 + "---|",
    ]  # fmt: skip
    return "\n".join([*lines, *(_row(part, case) for case in part.of(operation))])


def _row(part: Part, case: CaseSummary) -> str:
    moves, several = case.operation in part.moving, part.ranks > 1
    return row(
        binary(case.size),
        number(case.time_us.median),
        quartiles(case.time_us, number),
        number(case.mean_us),
        number(case.algorithm.median) if moves else _NOTHING,
        number(case.bus.median) if several else _NOTHING,
        quartiles(case.bus, number) if several else _NOTHING,
        str(case.iterations),
        "right" if case.right else "**wrong**",
    )
