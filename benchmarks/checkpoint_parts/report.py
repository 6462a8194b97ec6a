"""Records -> the report. Pure: the report says nothing that is not in results.jsonl."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench_parts.figures import Bars, Figure, Value
from bench_parts.markdown import NOTHING, RATIOS, count, machine_table, row, status
from bench_parts.others import UNKNOWN
from bench_parts.records import Records
from bench_parts.spreads import interval, quartiles
from bench_parts.statistics import FEWEST, Paired

from .summary import CaseSummary, MethodSummary, Summary, summarise
from .tables import BASELINE, CASES, METHODS

_FEW = 10  # rounds, below which a median says little
_PHASES = {
    "save": "Save, until every file and its directory are fsynced",
    "load": "Load, of files that the system holds in memory",
    "cold": "Load, after the system was asked to drop the files from memory",
}


def render(records: Records) -> list[str | Figure]:
    """The report of one run."""
    summary = summarise(records)
    machine = next(r for r in records if r["kind"] == "machine")
    setup = next((r for r in records if r["kind"] == "setup"), None)
    missing = [f"- Left out: {r['method']} ({r['why']})." for r in records if r["kind"] == "left_out"]
    parts: list[str | Figure] = ["# Saving and loading checkpoints", status(summary.status)]
    if machine["options"]["quick"]:
        parts.append("**This was a `--quick` run: the times mean nothing.**")
    if summary.cases and setup is not None:
        parts += [_damage(summary), "\n".join([*_headlines(summary), *missing])]
        for case in summary.cases:
            parts += [f"## {_heading(case, setup)}", *_figures(case), RATIOS, *_tables(case), _others(case)]
        parts += ["## The methods", _remarks(summary), "## How it was measured", _method(machine, setup)]
        parts += ["## What this does not show", _limits(summary)]
    else:
        parts += [NOTHING, "\n".join(missing)]
    parts += ["## Machine", machine_table(machine, filesystem=machine["filesystem"])]
    return [part for part in parts if part]


def _heading(case: CaseSummary, setup: Mapping[str, Any]) -> str:
    state = setup["states"][case.case]
    return f"{case.case}: {CASES[case.case]} ({state['tensors']:,} tensors, {state['bytes'] / 1e6:,.0f} MB)"


def _others(case: CaseSummary) -> str:
    if case.others_cores is None:
        return UNKNOWN
    return (
        "During these saves and loads, other programs (the launcher among them), and the system as it writes to the "
        "disk, kept "
        f"{case.others_cores.words()}."
    )


def _damage(summary: Summary) -> str:
    """What is most important, if there is any."""
    wrong = [
        f"**{method.method} did not give back what was saved ({case.case}).**"
        for case in summary.cases
        for method in case.methods
        if method.same is False
    ]
    return "\n".join(wrong)


def _headlines(summary: Summary) -> list[str]:
    """What was found of dist_toolkit, a sentence each."""
    lines = []
    for case in summary.cases:
        for name in ("dtk", "dtk-background"):
            method = case.method(name)
            if method is not None:
                lines += [f"- {case.case}: {words}" for words in _findings(method)]
    return lines


def _findings(method: MethodSummary) -> list[str]:
    found = []
    if method.stall_ms is not None:
        times = f", {_interval(method.stall)} times a copy of the same bytes in memory" if method.stall else ""
        found.append(f"a save in the background holds training up for {method.stall_ms.median:.0f} ms{times}.")
        return found
    verbs = {"save": "writes", "load": "reads", "cold": "reads from the disk"}
    for phase, verb in verbs.items():
        seen = method.phases.get(phase)
        if seen is not None and seen.rate is not None:
            low, high = seen.rate.low, seen.rate.high
            if low is not None and high is not None and low <= 1 <= high:
                found.append(f"dist_toolkit {verb} no slower and no faster than bare files, as far as was seen "
                             f"({_interval(seen.rate)} of their rate).")  # fmt: skip
            else:
                found.append(f"dist_toolkit {verb} at {_interval(seen.rate)} of the bare files' rate.")
    return found


def _interval(value: Paired) -> str:
    return f"{value.spread.median:.2f} ({interval(value)})"


def _figures(case: CaseSummary) -> list[Figure]:
    """Rates of all methods; no figure without one."""
    shown = {"save": "save", "load": "load", "cold": "load from disk"}
    phases = [phase for phase in shown if any(m.phases[phase].rate for m in case.methods if phase in m.phases)]
    if not phases:
        return []

    def value(method: MethodSummary, phase: str) -> Value | None:
        rate = method.phases[phase].rate if phase in method.phases else None
        return None if rate is None else Value.paired(rate)

    series = tuple(
        (method.method, tuple(value(method, phase) for phase in phases))
        for method in case.methods
        if method.method != BASELINE
    )
    known = any(each is not None and each.low is not None for _, values in series for each in values)

    return [
        Bars(
            name=f"checkpoint-{case.case}",
            title=f"Rate of {case.case} checkpoints, in that of bare files",
            unit=f"of the bare files' rate{', and 95 % of the median' if known else ''}",
            categories=tuple(shown[phase] for phase in phases),
            series=series,
            better="higher",
            baseline=1.0,
        )
    ]


def _tables(case: CaseSummary) -> list[str]:
    tables = [_table(case, phase) for phase in _PHASES if any(phase in method.phases for method in case.methods)]
    if any(method.stall_ms is not None for method in case.methods):
        tables.insert(1, _stalls(case))
    return tables


def _table(case: CaseSummary, phase: str) -> str:
    loads = phase != "save"
    lines = [f"**{_PHASES[phase]}**", ""]
    lines.append(row("method", "ms", f"rate / {BASELINE}", "quartiles", "95 % of the median", *(["bytes"] * loads)))
    lines.append("|---|---:|---:|---:|---:|" + "---|" * loads)
    for method in case.methods:
        seen = method.phases.get(phase)
        if seen is not None:
            rate = seen.rate
            lines.append(
                row(
                    method.method,
                    f"{seen.ms.median:,.0f}" if seen.ms.median >= 100 else f"{seen.ms.median:.1f}",
                    f"{rate.spread.median:.2f}" if rate else ("1" if method.method == BASELINE else ""),
                    quartiles(rate.spread) if rate else "",
                    interval(rate) if rate else "",
                    *([{True: "same", False: "**other**", None: "not compared"}[method.same]] * loads),
                )
            )
    return "\n".join(lines)


def _stalls(case: CaseSummary) -> str:
    lines = ["**In the background: until training can go on**", ""]
    lines += [
        row("method", "ms", "quartiles", "times a copy in memory", "95 % of the median"),
        "|---|---:|---:|---:|---:|",
    ]
    for method in case.methods:
        stall, times = method.stall_ms, method.stall
        if stall is not None:
            lines.append(
                row(
                    method.method,
                    f"{stall.median:.1f}",
                    quartiles(stall, "{:.1f}".format),
                    f"{times.spread.median:.2f}" if times else "",
                    interval(times) if times else "",
                )
            )
    copy = case.copy_ms
    if copy is not None:
        lines.append(row("a copy in memory", f"{copy.median:.1f}", quartiles(copy, "{:.1f}".format), "1", ""))
    return "\n".join(lines)


def _remarks(summary: Summary) -> str:
    names = {method.method for case in summary.cases for method in case.methods}
    return "\n".join(f"- {name}: {spec.title}. {spec.remark}" for name, spec in METHODS.items() if name in names)


def _method(machine: Mapping[str, Any], setup: Mapping[str, Any]) -> str:
    options = machine["options"]
    return (
        f"{count(setup['ranks'], 'rank')} with {count(setup['threads'], 'thread')} each, {setup['backend']}, state in "
        "the memory of the CPU. All methods live in the same processes and the same process group, and save the same "
        "random float32 matrices, each split over the ranks by rows (DTensors with Shard(0) for dtk and dcp, the same "
        "memory for the others). Before each save every tensor is changed, so that nothing older is taken for it; in "
        "the background it is changed again as soon as training could go on. A round has one save and one or two loads "
        "of every method, in an order drawn anew in each round "
        f"(seed {options['seed']}). There was one round of warm-up, which is left out, and then "
        f"{count(options['rounds'], 'round')}. Between two methods, outside the clock, the files "
        f"are deleted, all disks are synced and {options['settle']:g} s are waited: a write right after a large "
        "deletion is slower. The clock runs from all ranks being ready to all having finished, in the background until "
        "the save is durable. Rates are relative to the bare files of the same round; the median over rounds is given, "
        "its quartiles, and a 95 % interval of the median by resampling rounds. Loaded tensors are compared with what "
        "was saved, outside the clock and bit by bit, in every round, the warm-up included. The copy in memory is one "
        "call per rank, all ranks at once, to memory that was used before."
    )


def _limits(summary: Summary) -> str:
    lines = [
        "- GPUs: the copy from a GPU's memory is not measured.",
        "- A storage shared by several nodes: all ranks write to one local filesystem, and share its disk.",
        "- What comes after a load: dtk, torch.save and Fabric end with new tensors, as the bare files do; to copy "
        "them into a model's live weights, as dist_toolkit's engines do, takes the time of a copy in memory more.",
    ]
    if any("cold" in method.phases for case in summary.cases for method in case.methods):
        lines.append(
            "- A cold disk: files are dropped from this system's memory alone; what a host or a disk keeps is not "
            "known."
        )
    busy = [case.case for case in summary.cases if case.others_cores is not None and case.others_cores.matter]
    if busy:
        lines.append(
            "- A quiet machine: other programs, or the system as it writes to the disk, took a part of the cores; each "
            "state's section says how much. Others who use the disk do not show there."
        )
    rounds = min(phase.ms.count for case in summary.cases for m in case.methods for phase in m.phases.values())
    if rounds < _FEW:
        least = "" if rounds >= FEWEST else f", and a 95 % interval takes {FEWEST}"
        lines.append(f"- A reliable median: there were only {count(rounds, 'round')}{least}.")
    return "\n".join(lines)
