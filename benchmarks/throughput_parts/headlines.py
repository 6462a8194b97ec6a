"""What a reader takes home, in sentences. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bench_parts.markdown import count
from bench_parts.records import Record
from bench_parts.spreads import quartiles
from bench_parts.statistics import QUIET

from .cases import label
from .names import rate, times, who, work_name
from .summary import ModeSummary, WorkSummary

_FEW_QUIET = 3  # rounds, below which one of them decides the median
_ALIKE = 0.05  # of a ratio from 1, within which it is called the same
_ALL = 3  # comparisons of a workload that are told one by one; of more, the fastest and the slowest


def headlines(summary: Sequence[WorkSummary], machine: Mapping[str, Any]) -> list[str]:
    """Where it was measured, and a line for each workload."""
    weak = machine["options"].get("scaling") == "weak"
    return [_where(summary, machine), *(_line(work, work_name(work, summary, weak), machine) for work in summary)]


def _where(summary: Sequence[WorkSummary], machine: Mapping[str, Any]) -> str:
    modes = [mode for work in summary for mode in work.modes]
    if machine["options"]["gpus"]:
        return f"On {machine['options']['gpus']} x {modes[0].device}."
    found = f"On CPU, without a GPU, {count(machine['cores'], 'core')}"
    parallel = max((mode for mode in modes if mode.strategy == "dp"), key=lambda mode: mode.nproc, default=None)
    if parallel is None:
        return f"{found}."
    cores = count(parallel.threads, "core")
    return f"{found}. DataParallel is here one process with the same {cores} as {count(parallel.nproc, 'rank')}."


def _line(work: WorkSummary, name: str, machine: Mapping[str, Any]) -> str:
    compared = [mode for mode in work.modes if mode.ratio is not None]
    compared = [mode for mode in compared if mode.nproc == max(other.nproc for other in compared)]
    found = [*_comparisons(work, compared), *_scaling(work)]
    if not found:
        best = max(work.modes, key=lambda mode: mode.samples_per_s.median)
        found = [f"{who(best)} trains {rate(best.samples_per_s.median)} samples/s"]
    if work.others_cores is None:
        return f"**{name}**: {'; '.join(found)}."
    busy = f"{work.others_cores.median:.2f} of the {machine['cores']} cores busy"
    quiet = _in_quiet(compared) if work.others_cores.median >= QUIET else ""
    return f"**{name}**, while other programs kept {busy}: {'; '.join(found)}.{quiet}"


def _comparisons(work: WorkSummary, compared: Sequence[ModeSummary]) -> list[str]:
    if len(compared) <= _ALL:
        return [_comparison(mode, work) for mode in compared]
    told = [_comparison(mode, work) for mode in compared if mode.strategy == "ddp"]
    lowest, *_, highest = sorted(compared, key=_over)
    ends = f"{who(highest)} has the highest ratio ({_times(highest)}), {who(lowest)} the lowest ({_times(lowest)})"
    base = next(other for other in work.modes if other.label == lowest.compared_with)
    return [*told, f"of the {len(compared)} that are compared with {who(base)}, {ends}"]


def _times(mode: ModeSummary) -> str:
    ratio = mode.ratio
    if ratio is None:
        return "1.00x"
    middle = f", {quartiles(ratio)}" if ratio.count > 1 else ""
    return times(ratio, mode.apart) + middle


def _over(mode: ModeSummary) -> float:
    return mode.ratio.median if mode.ratio else 1.0


def _comparison(mode: ModeSummary, work: WorkSummary) -> str:
    ratio = mode.ratio
    assert ratio is not None
    base = next(other for other in work.modes if other.label == mode.compared_with)
    spread = count(ratio.count, "round")
    if ratio.low is not None and ratio.high is not None:
        spread += f", the middle half between {ratio.low:.2f} and {ratio.high:.2f}"
    if mode.apart:
        spread += "; not alive at once"
    if ratio.low is not None and ratio.high is not None and ratio.low <= 1 <= ratio.high:
        same = "about as fast as" if abs(ratio.median - 1) <= _ALIKE else "neither clearly faster nor slower than"
        return f"{who(mode)} is {same} {who(base)} ({ratio.median:.2f}x; {spread})"
    return f"{who(mode)} has {ratio.median:.2f}x the throughput of {who(base)} ({spread})"


def _scaling(work: WorkSummary) -> list[str]:
    """Of DDP, or the first strategy that has it, with the most shares; where another is better, of that too."""
    scaled = [mode for mode in work.modes if mode.speedup is not None and mode.efficiency is not None]
    if not scaled:
        return []
    most = max(mode.nproc for mode in scaled)
    last = [mode for mode in scaled if mode.nproc == most]
    told = next((mode for mode in last if mode.strategy == "ddp"), last[0])
    best = max(last, key=lambda mode: mode.efficiency or 0.0)
    return [_speedup(mode, work) for mode in ([told] if told is best else [told, best])]


def _speedup(mode: ModeSummary, work: WorkSummary) -> str:
    assert mode.speedup is not None
    assert mode.efficiency is not None
    base = next(other for other in work.modes if other.label == mode.scaled_from)
    apart = "; not alive at once" if mode.scaled_apart else ""
    return (
        f"{who(mode)} gives {mode.speedup.median:.2f}x of {who(base)} ({100 * mode.efficiency:.0f} % efficiency{apart})"
    )


def _in_quiet(compared: Sequence[ModeSummary]) -> str:
    """Of the first that is told; nothing of so few rounds that one of them decides."""
    told = next((mode for mode in compared if mode.strategy == "ddp"), compared[0] if compared else None)
    quiet = told.quiet_ratio if told else None
    if told is None or quiet is None or quiet.count < _FEW_QUIET:
        return ""
    return f" In the {quiet.count} rounds free of other programs: {who(told)} {quiet.median:.2f}x."


def fit_lines(found: Sequence[Record]) -> list[str]:
    """The largest batches, a line each."""
    lines = []
    for fit in found:
        name = f"{label(fit['strategy'], fit['nproc'])} on {fit['model']} ({fit['precision']})"
        if fit["per_process"] is None:
            lines.append(f"{name}: not even the smallest batch fits.")
            continue
        more = "; larger ones were not tried, their steps take too long" if fit["ended_by"] == "time" else ""
        lines.append(
            f"{name}: {fit['per_process']} samples a process, {fit['global']} over all, in {fit['mib']:,.0f} MiB{more}."
        )
    return lines
