"""The report of `dtk bench verdict`: how often each named the rank that failed first. Pure but for `show`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from bench_parts.figures import Bars, Figure, Value
from bench_parts.markdown import NOTHING, machine_table, row, status
from bench_parts.quantities import Quantity
from bench_parts.records import Records
from bench_parts.statistics import status_of, wilson
from bench_parts.work import Work, with_work

from .prose import limits, method
from .runs import right

WORK = (Work("only"), Work("seeds", of=lambda name: name[0] == "all"))
"""More draws of a cascade are more runs of it, and a larger part of all."""
_HEAD = "# Who failed first?"


def summarise(records: Records) -> dict[str, tuple[int, int, int]]:
    """Group -> (runs, right by dtk, right by torchrun), and `all`."""
    groups: dict[str, list[tuple[bool, bool]]] = {}
    for record in runs_of(records):
        groups.setdefault(record["group"], []).append(right(dict(record)))
    groups["all"] = [answer for answers in list(groups.values()) for answer in answers]
    return {
        name: (len(answers), sum(dtk for dtk, _ in answers), sum(torchrun for _, torchrun in answers))
        for name, answers in groups.items()
    }


def runs_of(records: Records) -> list[Mapping[str, Any]]:
    """The records of runs."""
    return [record for record in records if record["kind"] == "run"]


def as_json(records: Records) -> dict[str, Any]:
    """How the run ended, and the table as plain values."""
    return {"status": status_of(records)} | {
        name: {
            "runs": runs,
            **{
                who: {"right": right, "share": right / runs, "interval": wilson(right, runs)}
                for who, right in (("dtk", dtk), ("torchrun", torchrun))
            },
        }
        for name, (runs, dtk, torchrun) in summarise(records).items()
        if runs
    }


def render(records: Records) -> list[str | Figure]:
    """The whole report."""
    machine = records[0]
    end = records[-1]["status"] if records[-1]["kind"] == "end" else "unfinished"
    parts: list[str | Figure] = [_HEAD, status(end), *_headline(records), *_figures(records)]
    runs = runs_of(records)
    parts.append("## Accuracy\n\n" + _table(records) if runs else NOTHING)
    left_out = [f"- {record['name']}: {record['why']}" for record in records if record["kind"] == "left_out"]
    if left_out:
        parts.append("Left out:\n\n" + "\n".join(left_out))
    if runs:
        parts.append("## Runs\n\n" + "\n".join(_runs(runs)))
        parts += ["## How it was measured", method(runs), "## What this does not show", limits(runs)]
    parts += ["## Machine", machine_table(machine)]
    return [part for part in parts if part]


def quantities(records: Records) -> list[Quantity]:
    """Of each group, the answers: 1 for a right one, 0 for a wrong one."""
    found: dict[str, list[tuple[bool, bool]]] = {}
    for record in runs_of(records):
        for group in (record["group"], "all"):
            found.setdefault(group, []).append(right(dict(record)))
    numbers = (
        Quantity((group, name), "right", "higher", tuple(float(answer[place]) for answer in answers))
        for group, answers in found.items()
        for place, name in enumerate(("dtk", "torchrun"))
    )
    return with_work(numbers, records[0]["options"], WORK)


def _headline(records: Records) -> list[str]:
    runs, dtk, torchrun = summarise(records)["all"]
    if not runs:
        return []
    return [
        f"- Runs whose first failing rank was named: by dtk {share(dtk, runs)}, by torchrun {share(torchrun, runs)}. "
        "In brackets: the 95 % interval of the share."
    ]


def _figures(records: Records) -> list[Figure]:
    found = {name: counts for name, counts in summarise(records).items() if counts[0]}
    if not found:
        return []
    shares = [tuple(_value(counts[place], counts[0]) for counts in found.values()) for place in (1, 2)]
    return [
        Bars(
            name="verdict",
            title="How often the rank that failed first is named",
            unit="% of the runs, and 95 % interval",
            categories=tuple(f"{name} ({counts[0]})" for name, counts in found.items()),
            series=(("dtk", shares[0]), ("torchrun", shares[1])),
            better="higher",
        )
    ]


def _value(right: int, runs: int) -> Value:
    low, high = wilson(right, runs)
    return Value(100 * right / runs, 100 * low, 100 * high)


def _table(records: Records) -> str:
    lines = [
        "The 95 % interval is that of the share.",
        "",
        row("runs", "number", "dtk right", "95 %", "torchrun right", "95 %"),
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, (runs, dtk, torchrun) in summarise(records).items():
        if runs:
            cells = (
                cell for right in (dtk, torchrun) for cell in (f"{right} ({right / runs:.0%})", _range(right, runs))
            )
            lines.append(row(name, str(runs), *cells))
    return "\n".join(lines)


def share(right: int, runs: int) -> str:
    """`12 of 12, 100% (76% to 100%)`."""
    return f"{right} of {runs}, {right / runs:.0%} ({_range(right, runs)})"


def _range(right: int, runs: int) -> str:
    low, high = wilson(right, runs)
    return f"{low:.0%} to {high:.0%}"


def _runs(records: Iterable[Mapping[str, Any]]) -> Iterable[str]:
    yield row("kind", "run", "failed first", "named by dtk", "how, as dtk says", "named by torchrun")
    yield "|---|---|---|---|---|---|"
    for record in records:
        named = ", ".join(map(str, record["torchrun"])) or "-"
        how = (record["how"] or "-").replace("|", "\\|")
        yield row(record["group"], record["name"], str(record["truth"]), str(record["dtk"]), how, named)


def show(records: Records) -> None:
    """Print the table."""
    if not runs_of(records):
        print(NOTHING)
        return
    from bench_parts.terminal import print_table
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("runs")
    for head in ("dtk right (95 %)", "torchrun right (95 %)"):
        table.add_column(head, justify="right", no_wrap=True)
    for name, (runs, dtk, torchrun) in summarise(records).items():
        if runs:
            table.add_row(name, share(dtk, runs), share(torchrun, runs))
    print_table(table)
