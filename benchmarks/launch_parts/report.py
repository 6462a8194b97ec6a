"""The report of `dtk bench launch`, from its records alone. Pure but for `show`."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from typing import Any

from bench_parts.figures import Bars, Figure, Value
from bench_parts.markdown import RATIOS, machine_table, row, status
from bench_parts.quantities import Quantity
from bench_parts.records import Records
from bench_parts.statistics import status_of

from . import answers, idle, starts
from .prose import limits, method

_HEAD = "# The cost of the command line"


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Median and quartiles."""
    if len(values) < 2:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return middle, low, high


def compared(records: Records, kind: str, value: str, baseline: str) -> dict[str, dict[str, Any]]:
    """Command -> its times, and its times over the baseline's of the same round."""
    times: dict[str, dict[int, float]] = {}
    for record in records:
        if record["kind"] == kind:
            times.setdefault(record["command"], {})[record["round"]] = record[value]
    base = times.get(baseline, {})
    return {
        command: {
            "seconds": spread(list(by_round.values())),
            "ratio": spread([seconds / base[number] for number, seconds in by_round.items() if number in base]),
        }
        for command, by_round in times.items()
        if set(by_round) & set(base)
    }


def idle_shares(records: Records) -> dict[str, dict[str, tuple[float, float, float]]]:
    """Kind of ranks -> share of a core of dtk and of torchrun."""
    found: dict[str, dict[str, tuple[float, float, float]]] = {}
    for kind in idle.KINDS:
        seen = [record for record in records if record["kind"] == "idle" and record["ranks"] == kind]
        if seen:
            found[kind] = {name: spread([record[name] for record in seen]) for name in ("dtk", "torchrun")}
    return found


def as_json(records: Records) -> dict[str, Any]:
    """All numbers as plain values."""
    return {
        "status": status_of(records),
        "answers": compared(records, "answer", "seconds", answers.BASELINE),
        "first_line": compared(records, "start", "seconds", starts.BASELINE),
        "to_the_end": compared(records, "start", "total", starts.BASELINE),
        "idle": idle_shares(records),
    }


def render(records: Records) -> list[str | Figure]:
    """The whole report."""
    end = records[-1]["status"] if records[-1]["kind"] == "end" else "unfinished"
    parts: list[str | Figure] = [_HEAD, status(end), *_headline(records), *_figures(records)]
    parts += ["\n".join(section) for section in _sections(records) if len(section) > 4]
    parts += ["## How it was measured", method(records), "## What this does not show", limits(records)]
    parts += ["## Machine", machine_table(records[0])]
    return [part for part in parts if part]


def quantities(records: Records) -> list[Quantity]:
    """The seconds of each command, and the share of a core of each supervisor."""
    found: dict[tuple[str, ...], list[float]] = {}
    for record in records:
        if record["kind"] == "start":
            found.setdefault(("first line", record["command"]), []).append(record["seconds"])
            found.setdefault(("end", record["command"]), []).append(record["total"])
        elif record["kind"] == "answer":
            found.setdefault(("answer", record["command"]), []).append(record["seconds"])
        elif record["kind"] == "idle":
            found.setdefault(("of a core", record["ranks"], "dtk"), []).append(record["dtk"])
            found.setdefault(("of a core", record["ranks"], "torchrun"), []).append(record["torchrun"])
    units = {name: "cores" if name[0] == "of a core" else "s" for name in found}
    return [Quantity(name, units[name], "lower", tuple(values)) for name, values in found.items()]


def _headline(records: Records) -> list[str]:
    numbers = as_json(records)
    lines = []
    for what, title in (("first_line", "first line of the script"), ("to_the_end", "end of that run")):
        ratios = {name: values["ratio"] for name, values in numbers[what].items() if name != starts.BASELINE}
        if ratios:
            found = ", ".join(
                f"`{name}` {ratio[0]:.2f}x (quartiles {ratio[1]:.2f} to {ratio[2]:.2f})"
                for name, ratio in ratios.items()
            )
            lines.append(f"- To the {title}, in times of torchrun's: {found}.")
    for kind, shares in numbers["idle"].items():
        lines.append(
            f"- While {idle.RANKS} ranks run ({kind}), `dtk launch` uses {shares['dtk'][0]:.2%} of a core beside the "
            f"{shares['torchrun'][0]:.2%} of the torchrun that it has started."
        )
    return ["\n".join(lines)]


def _figures(records: Records) -> list[Figure]:
    """The seconds of each kind of start."""
    kinds = (
        ("launch-start", "From the command to the first line of the script", "start", "seconds", starts.BASELINE),
        ("launch-answer", "From the command to its answer", "answer", "seconds", answers.BASELINE),
    )
    figures: list[Figure] = []
    for name, title, kind, value, baseline in kinds:
        found = sorted(compared(records, kind, value, baseline).items(), key=lambda item: item[1]["seconds"])
        if found:
            bars = tuple(Value(*values["seconds"]) for _, values in found)
            commands = tuple(command for command, _ in found)
            figures.append(Bars(name, title, "seconds", commands, (("seconds", bars),), better="lower"))
    return figures


def _sections(records: Records) -> Iterator[list[str]]:
    yield _times(
        f"## To the first line of the script\n\nOn the last of {starts.RANKS} ranks to come to it. {RATIOS}",
        compared(records, "start", "seconds", starts.BASELINE), starts.BASELINE,
    )  # fmt: skip
    yield _times("## To the end of that run", compared(records, "start", "total", starts.BASELINE), starts.BASELINE)
    lines = [f"## While it runs\n\nShare of a core, with {idle.RANKS} ranks, over {idle.SECONDS:g} s at a time.", ""]
    lines += [row("the ranks are", "dtk", "its torchrun"), "|---|---|---|"]
    for kind, shares in idle_shares(records).items():
        lines.append(row(kind, *(f"{share[0]:.2%} ({share[1]:.2%} to {share[2]:.2%})" for share in shares.values())))
    yield lines
    yield _times("## To an answer", compared(records, "answer", "seconds", answers.BASELINE), answers.BASELINE)


def _times(head: str, found: dict[str, dict[str, Any]], baseline: str) -> list[str]:
    lines = [head, "", row("command", "seconds", f"/ {baseline}"), "|---|---|---|"]
    for command, values in sorted(found.items(), key=lambda item: item[1]["seconds"]):
        cells = ("{:.3f} ({:.3f} to {:.3f})".format(*values[name]) for name in ("seconds", "ratio"))
        lines.append(row(f"`{command}`", *cells))
    return lines


def show(records: Records) -> None:
    """Print the main numbers."""
    from bench_parts.terminal import print_table
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for head in ("what", "dtk", "/ torchrun"):
        table.add_column(head, no_wrap=True, justify="left" if head == "what" else "right")
    numbers = as_json(records)
    for what, title in (("first_line", "to the first line, s"), ("to_the_end", "to the end, s")):
        values = numbers[what].get("dtk launch")
        if values:
            table.add_row(title, f"{values['seconds'][0]:.3f}", f"{values['ratio'][0]:.3f}")
    for kind, shares in numbers["idle"].items():
        beside = f"beside {shares['torchrun'][0]:.2%}"
        table.add_row(f"of a core, {idle.RANKS} ranks: {kind}", f"{shares['dtk'][0]:.2%}", beside)
    print_table(table)
