"""The report's tables, in Markdown. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from bench_parts.markdown import count, row
from bench_parts.records import Record
from bench_parts.spreads import quartiles

from .names import APART_NOTE, rate, times, work_name
from .summary import ModeSummary, WorkSummary
from .tables import MODELS

EXPOSED = "communication"
PARTS = ("data", "scatter", "replicate", "forward", "gather", "backward", EXPOSED, "optimizer")
"""In the order of a step."""


def head(work: WorkSummary, name: str, size: str, weak: bool) -> str:
    """What the tables of a workload are about."""
    weights = f"; {work.parameters:,} weights" if work.parameters else ""
    batch = f"batch {work.batch} a rank" if weak else f"global batch {work.batch}"
    words = MODELS[work.model].at(size).words
    return f"### {name}\n\n{words}{weights}; {work.precision}, {batch}, {count(work.steps, 'step')} a block."


def overview(summary: Sequence[WorkSummary], weak: bool) -> str:
    """Each strategy on each workload: samples/s, or times those of what it is compared with; of several workloads."""
    if len(summary) < 2:
        return ""
    labels = dict.fromkeys(mode.label for work in summary for mode in work.modes)
    names = [work_name(work, summary, weak) for work in summary]
    lines = [row("samples/s, and times what it is compared with", *names), "|---|" + "---:|" * len(names)]
    for label in labels:
        modes = [next((mode for mode in work.modes if mode.label == label), None) for work in summary]
        lines.append(row(label, *("-" if mode is None else _rate_and_ratio(mode) for mode in modes)))
    return "\n".join(lines)


def _rate_and_ratio(mode: ModeSummary) -> str:
    found = rate(mode.samples_per_s.median)
    return found if mode.ratio is None else f"{found} ({times(mode.ratio, mode.apart)})"


def rates(work: WorkSummary) -> str:
    """Samples/s, step times and what they are compared with."""
    names = ("strategy", "processes x threads", "samples/s", "quartiles", "step p50", "p95", "cores used")
    lines = [row(*names, "compared", "quartiles", "scaling"), "|---|---|" + "---:|" * 8]
    for mode in work.modes:
        ratio = mode.ratio
        compared = (times(ratio, mode.apart, mode.compared_with), quartiles(ratio)) if ratio else ("-", "")
        lines.append(
            row(
                mode.label,
                f"{mode.ranks} x {mode.threads}",
                rate(mode.samples_per_s.median),
                quartiles(mode.samples_per_s, rate),
                f"{mode.step_ms:.1f} ms",
                "-" if mode.slow_step_ms is None else f"{mode.slow_step_ms:.1f} ms",
                f"{mode.cores_used:.2f}",
                *compared,
                _scaling(mode),
            )
        )
    return "\n".join(lines)


def note(works: Sequence[WorkSummary]) -> str:
    """What the mark in tables of these means; '' where none has it."""
    modes = [mode for work in works for mode in work.modes]
    return APART_NOTE if any(mode.apart or mode.scaled_apart for mode in modes) else ""


def parts(work: WorkSummary) -> str:
    """Of a step, in ms, with the quartiles of exposed communication; nothing where none were timed."""
    modes = [mode for mode in work.modes if mode.parts_ms]
    names = [name for name in PARTS if any(name in mode.parts_ms for mode in modes)]
    if not modes:
        return ""
    heads = [head for name in names for head in ((_part(name), "quartiles") if name == EXPOSED else (_part(name),))]
    lines = [row("parts of a step, ms", *heads, "sum"), "|---|" + "---:|" * (len(heads) + 1)]
    for mode in modes:
        cells = [cell for name in names for cell in _part_cells(mode, name)]
        lines.append(row(mode.label, *cells, f"{sum(part.median for part in mode.parts_ms.values()):.2f}"))
    return "\n".join(lines)


def _part_cells(mode: ModeSummary, name: str) -> list[str]:
    spread = mode.parts_ms.get(name)
    cells = ["-" if spread is None else f"{spread.median:.2f}"]
    if name == EXPOSED:
        cells.append("" if spread is None else quartiles(spread))
    return cells


def resources(work: WorkSummary) -> str:
    """Peak memory, and arithmetic."""
    on_gpus = any(mode.memory.gpu_reserved is not None for mode in work.modes)
    gpu = ("GPU: tensors", "GPU: held by torch") if on_gpus else ()
    arithmetic = ("TFLOP/s", "MFU") if on_gpus else ("GFLOP/s",)
    names = ("peak memory", "largest process", "all processes", *gpu, *arithmetic)
    lines = [row(*names), "|---|" + "---:|" * (len(names) - 1)]
    for mode in work.modes:
        memory = mode.memory
        cells = [_mib(memory.rss_most), _mib(memory.rss_sum)]
        if on_gpus:
            cells += [_mib(memory.gpu_allocated), _mib(memory.gpu_reserved)]
        scale = 1e12 if on_gpus else 1e9
        cells.append("-" if mode.flops_per_s is None else f"{mode.flops_per_s / scale:.1f}")
        if on_gpus:
            cells.append("-" if mode.utilisation is None else f"{100 * mode.utilisation:.1f} %")
        lines.append(row(mode.label, *cells))
    return "\n".join(lines)


def largest(found: Sequence[Record]) -> str:
    """The largest batches that fit."""
    names = ("model", "precision", "strategy", "samples a process", "samples a step", "memory", "step", "ended by")
    lines = [row(*names), "|---|---|---|" + "---:|" * 4 + "---|"]
    for fit in found:
        cells = [fit["model"], fit["precision"], f"{fit['strategy']} x{fit['nproc']}"]
        if fit["per_process"] is None:
            lines.append(row(*cells, "none", "-", "-", "-", fit["ended_by"]))
            continue
        seconds = f"{fit['step_seconds']:.2f} s"
        numbers = (str(fit["per_process"]), str(fit["global"]), _mib(fit["mib"]), seconds)
        lines.append(row(*cells, *numbers, fit["ended_by"]))
    return "\n".join(lines)


def _part(name: str) -> str:
    return {"data": "data wait", EXPOSED: "exposed communication"}.get(name, name)


def _scaling(mode: ModeSummary) -> str:
    if mode.speedup is None or mode.efficiency is None:
        return "-"
    return f"{times(mode.speedup, mode.scaled_apart, mode.scaled_from)} ({100 * mode.efficiency:.0f} %)"


def _mib(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f} MiB"
