"""Records -> the report. Pure: the report says nothing that is not in results.jsonl."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench_parts.figures import Figure, Lines, Value
from bench_parts.markdown import machine_table, row, status
from bench_parts.records import Records
from bench_parts.words import binary, number

from .prose import headlines, limits, method, title
from .summary import CaseSummary, Part, summarise, wrong
from .tables import OPERATIONS, SCOPES


def render(records: Records) -> list[str | Figure]:
    """The report of one run."""
    summary = summarise(records)
    machine = next(r for r in records if r["kind"] == "machine")
    setup = next((r for r in records if r["kind"] == "setup"), None)
    end = next((r for r in reversed(records) if r["kind"] == "end"), {})
    parts: list[str | Figure] = ["# Collective communication", status(summary.status, end.get("what", ""))]
    if bad := wrong(records):
        parts.append(f"**Wrong results**: {', '.join(bad)}. Their times mean nothing.")
    if summary.parts and setup is not None:
        lines = [*headlines(summary, setup), *_left_out(records)]
        parts += ["\n".join(lines), *(block for part in summary.parts for block in _section(part, setup))]
        parts += ["## How it was measured", method(machine, setup, summary)]
        parts += ["## What this does not show", limits(summary, setup)]
    else:
        parts += ["Nothing was measured.", "\n".join(_left_out(records))]
    parts += ["## Machine", machine_table(machine, **_rows(setup))]
    return [part for part in parts if part]


def _left_out(records: Records) -> list[str]:
    found = dict.fromkeys(
        f"- Left out: {r['operation']} by {r['backend']} {SCOPES[r['scope']]} ({r['why']})."
        for r in records
        if r["kind"] == "left_out"
    )
    return list(found)


def _section(part: Part, setup: Mapping[str, Any]) -> list[str | Figure]:
    name = title(part, setup)
    bus = part.ranks > 1
    stem = f"{part.backend}-{part.scope}"
    shown = [(OPERATIONS[operation].title, part.of(operation)) for operation in part.operations]

    def lines(value: str, y: str, kind: str, log_y: bool) -> Lines:
        series = tuple(
            (label, tuple((float(case.size), Value.of(getattr(case, value))) for case in cases))
            for label, cases in shown
        )
        return Lines(f"{kind}-{stem}", name, "size", y, series, log_x=True, log_y=log_y)

    return [
        f"## {name}",
        lines("bus" if bus else "algorithm", f"{'bus' if bus else 'algorithm'} bandwidth in GB/s", "bandwidth", True),
        lines("time_us", "time in µs", "time", True),
        _overview(part, bus),
        *(_table(part.ranks, operation, part.of(operation)) for operation in part.operations),
    ]


def _overview(part: Part, bus: bool) -> str:
    """Sizes by operations: times of the small, bandwidths of all."""
    titles = [OPERATIONS[operation].title for operation in part.operations]
    kind = "bus" if bus else "algorithm"
    lines = [
        f"Medians: time in µs, and {kind} bandwidth in GB/s.",
        "",
        row("size", *(f"{name} µs" for name in titles), *(f"{name} GB/s" for name in titles)),
        "|---:|" + "---:|" * (2 * len(titles)),
    ]
    for size in part.sizes:
        cases = [next((c for c in part.of(operation) if c.size == size), None) for operation in part.operations]
        times = ("" if case is None else number(case.time_us.median) for case in cases)
        rates = ("" if case is None else number((case.bus if bus else case.algorithm).median) for case in cases)
        lines.append(row(binary(size), *times, *rates))
    return "\n".join(lines)


def _table(ranks: int, operation: str, cases: list[CaseSummary]) -> str:
    spec = OPERATIONS[operation]
    lines = [
        f"**{spec.title}**: S is the size of {spec.of}; busbw = algbw x {spec.formula} = algbw x "
        f"{number(spec.factor(ranks))}",
        "",
        row("size", "time in µs", "quartiles", "mean over ranks", "algbw GB/s", "busbw GB/s", "quartiles",
            "operations a block", "result"),
        "|" + "---:|" * 8 + "---|",
    ]  # fmt: skip
    for case in cases:
        lines.append(
            row(
                binary(case.size),
                number(case.time_us.median),
                f"{number(case.time_us.low)} to {number(case.time_us.high)}",
                number(case.mean_us),
                number(case.algorithm.median),
                number(case.bus.median),
                f"{number(case.bus.low)} to {number(case.bus.high)}",
                str(case.iterations),
                "right" if case.right else "**wrong**",
            )
        )
    return "\n".join(lines)


def _rows(setup: Mapping[str, Any] | None) -> dict[str, str]:
    if setup is None:
        return {}
    interfaces = ", ".join(f"{name}={value}" for name, value in setup["interfaces"].items())
    rows = {"device": setup["device"], "nodes": str(setup["nodes"]), "interfaces": interfaces or "as found"}
    if setup["nccl"]:
        rows["nccl"] = setup["nccl"]
    return rows
