"""The report of `dtk bench launch`, from its records alone. Pure but for `show`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bench_parts.figures import Bars, Figure, Value
from bench_parts.markdown import NOTHING, RATIOS, machine_table, row, status
from bench_parts.quantities import Quantity
from bench_parts.records import Records
from bench_parts.spreads import quartiles
from bench_parts.statistics import Spread, status_of

from . import answers, idle, starts
from .prose import limits, method, rounds_of

_HEAD = "# The cost of the command line"


def compared(records: Records, kind: str, value: str, baseline: str) -> dict[str, dict[str, Spread]]:
    """Command -> its times, and its times over the baseline's of the same round."""
    times: dict[str, dict[int, float]] = {}
    for record in records:
        if record["kind"] == kind:
            times.setdefault(record["command"], {})[record["round"]] = record[value]
    base = times.get(baseline, {})
    return {
        command: {
            "seconds": Spread.of(list(by_round.values())),
            "ratio": Spread.of([seconds / base[number] for number, seconds in by_round.items() if number in base]),
        }
        for command, by_round in times.items()
        if set(by_round) & set(base)
    }


def idle_shares(records: Records) -> dict[str, dict[str, Spread]]:
    """Kind of ranks -> share of a core of dtk and of torchrun."""
    found: dict[str, dict[str, Spread]] = {}
    for kind in idle.KINDS:
        seen = [record for record in records if record["kind"] == "idle" and record["ranks"] == kind]
        if seen:
            found[kind] = {name: Spread.of([record[name] for record in seen]) for name in ("dtk", "torchrun")}
    return found


def as_json(records: Records) -> dict[str, Any]:
    """All numbers as plain values: each a median and its two quartiles, which are None of a single round."""
    plain = {
        part: {
            name: {what: (spread.median, spread.low, spread.high) for what, spread in spreads.items()}
            for name, spreads in found.items()
        }
        for part, found in _numbers(records).items()
    }
    return {"status": status_of(records), **plain}


def _numbers(records: Records) -> dict[str, dict[str, dict[str, Spread]]]:
    return {
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
    if any(rounds_of(records).values()):
        parts += ["## How it was measured", method(records), "## What this does not show", limits(records)]
    else:
        parts.append(NOTHING)
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
    numbers = _numbers(records)
    lines = []
    for what, title in (("first_line", "first line of the script"), ("to_the_end", "end of that run")):
        ratios = {name: values["ratio"] for name, values in numbers[what].items() if name != starts.BASELINE}
        if ratios:
            found = ", ".join(
                f"`{name}` {ratio.median:.2f}x ({'quartiles ' if ratio.count > 1 else ''}{quartiles(ratio)})"
                for name, ratio in ratios.items()
            )
            lines.append(f"- To the {title}, in times of torchrun's: {found}.")
    for kind, shares in numbers["idle"].items():
        lines.append(
            f"- While {idle.RANKS} ranks run ({kind}), `dtk launch` uses {shares['dtk'].median:.2%} of a core beside "
            f"the {shares['torchrun'].median:.2%} of the torchrun that it has started."
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
        found = _by_time(compared(records, kind, value, baseline))
        if found:
            bars = tuple(Value.of(values["seconds"]) for _, values in found)
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
        lines.append(
            row(
                kind,
                *(f"{share.median:.2%} ({quartiles(share, '{:.2%}'.format, 'look')})" for share in shares.values()),
            )
        )
    yield lines
    yield _times("## To an answer", compared(records, "answer", "seconds", answers.BASELINE), answers.BASELINE)


def _by_time(found: dict[str, dict[str, Spread]]) -> list[tuple[str, dict[str, Spread]]]:
    return sorted(found.items(), key=lambda item: item[1]["seconds"].median)


def _times(head: str, found: dict[str, dict[str, Spread]], baseline: str) -> list[str]:
    lines = [head, "", row("command", "seconds", f"/ {baseline}"), "|---|---|---|"]
    for command, values in _by_time(found):
        spreads = (values[name] for name in ("seconds", "ratio"))
        cells = (f"{spread.median:.3f} ({quartiles(spread, '{:.3f}'.format)})" for spread in spreads)
        lines.append(row(f"`{command}`", *cells))
    return lines


def show(records: Records) -> None:
    """Print the main numbers."""
    if not any(rounds_of(records).values()):
        print(NOTHING)
        return
    from bench_parts.terminal import print_table
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for head in ("what", "dtk", "/ torchrun"):
        table.add_column(head, no_wrap=True, justify="left" if head == "what" else "right")
    numbers = _numbers(records)
    for what, title in (("first_line", "to the first line, s"), ("to_the_end", "to the end, s")):
        values = numbers[what].get("dtk launch")
        if values:
            table.add_row(title, f"{values['seconds'].median:.3f}", f"{values['ratio'].median:.3f}")
    for kind, shares in numbers["idle"].items():
        beside = f"beside {shares['torchrun'].median:.2%}"
        table.add_row(f"of a core, {idle.RANKS} ranks: {kind}", f"{shares['dtk'].median:.2%}", beside)
    print_table(table)
