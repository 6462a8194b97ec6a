"""Records -> the report. Pure: the report says nothing that is not in results.jsonl."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bench_parts.figures import Figure
from bench_parts.markdown import count, machine_table, row, status
from bench_parts.records import Records
from bench_parts.statistics import QUIET, Spread

from .prose import limits, method
from .summary import ModelSummary, ModeSummary, summarise
from .tables import MODELS, STRATEGIES


def render(records: Records) -> list[str | Figure]:
    """The report of one run."""
    summary = summarise(records)
    machine = next(r for r in records if r["kind"] == "machine")
    end = next((r for r in records if r["kind"] == "end"), {"status": "unfinished"})
    failed = f"{end['strategy']} on {end['model']} did not work" if "strategy" in end else ""
    parts: list[str | Figure] = ["# Training throughput", status(end["status"], where=failed), *_shared(summary)]
    if summary:
        parts += ["\n".join(f"- {line}" for line in _headlines(summary, machine))]
        parts += ["## Results", *(_table(model) for model in summary)]
        parts += ["## How it was measured", *method(machine)]
        parts += ["## What this does not show", "\n".join(f"- {line}" for line in limits(summary, machine))]
    else:
        parts += ["Nothing was measured."]
    parts += ["## Machine", machine_table(machine, **{"GPUs used": str(machine["options"]["gpus"])})]
    return [part for part in parts if part]


def _headlines(summary: Sequence[ModelSummary], machine: Mapping[str, Any]) -> list[str]:
    """One sentence a comparison."""
    lines = []
    for model in summary:
        base = next(mode for mode in model.modes if mode.strategy == model.baseline)
        lines += [_headline(model, base, mode, machine) for mode in model.modes if mode.ratio is not None]
        if len(model.modes) == 1:
            lines.append(f"{_who(base)} trains {_rate(base.samples_per_s.median)} samples/s of {model.model}.")
    return lines


def _headline(model: ModelSummary, base: ModeSummary, mode: ModeSummary, machine: Mapping[str, Any]) -> str:
    ratio = mode.ratio
    assert ratio is not None
    if ratio.low <= 1 <= ratio.high:
        found = f"{_who(mode)} is about as fast as {_who(base)} on {model.model} ({ratio.median:.2f}x)"
    else:
        found = f"{_who(mode)} has {ratio.median:.2f}x the throughput of {_who(base)} on {model.model}"
    spread = f"median of {count(ratio.count, 'round')}, the middle half between {ratio.low:.2f} and {ratio.high:.2f}"
    if model.others_cores is None or model.others_cores.median < QUIET:
        return f"**{found}**, {_where(base, machine)}; {spread}."
    busy = f"{model.others_cores.median:.1f} of the {machine['cores']} cores busy"
    return f"While other programs kept {busy}: {found}, {_where(base, machine)}; {spread}.{_in_quiet(mode)}"


def _where(base: ModeSummary, machine: Mapping[str, Any]) -> str:
    if machine["options"]["gpus"]:
        return f"on {machine['options']['gpus']} x {base.device}"
    cores = count(base.threads, "core")
    return f"on CPU, without a GPU, where {_who(base)} is one process with the same {cores}"


def _shared(summary: Sequence[ModelSummary]) -> list[str]:
    busy = [model.others_cores.median for model in summary if model.others_cores is not None]
    if not busy or max(busy) < QUIET:
        return []
    return [
        "**The machine was shared, so these ratios are not those of the strategies alone**: the limits below say how "
        "other programs shift them."
    ]


def _in_quiet(mode: ModeSummary) -> str:
    quiet = mode.quiet_ratio
    if quiet is None:
        return " No round was free of other programs."
    return f" In the {count(quiet.count, 'round')} free of other programs: {quiet.median:.2f}x."


def _table(model: ModelSummary) -> str:
    head = ("strategy", "processes x threads", "samples/s", "quartiles", "step", "cores used", f"of {model.baseline}")
    lines = [
        f"**{model.model}** ({MODELS[model.model].words}; {model.parameters:,} weights), "
        f"global batch {model.global_batch_size}, {count(model.steps, 'step')} a block",
        "",
        row(*head, "quartiles"),
        "|---|---|" + "---:|" * 6,
    ]
    for mode in model.modes:
        rate, ratio = mode.samples_per_s, mode.ratio
        compared = ("1", "") if ratio is None else (f"{ratio.median:.2f}x", _range(ratio, "{:.2f}".format))
        lines.append(
            row(
                mode.strategy,
                f"{mode.ranks} x {mode.threads}",
                _rate(rate.median),
                _range(rate, _rate),
                f"{mode.step_ms:.1f} ms",
                f"{mode.cores_used:.2f}",
                *compared,
            )
        )
    return "\n".join(lines)


def _range(spread: Spread, show: Any) -> str:
    return f"{show(spread.low)} to {show(spread.high)}"


def _who(mode: ModeSummary) -> str:
    spec = STRATEGIES[mode.strategy]
    return f"{spec.title} on {count(mode.ranks, 'rank')}" if spec.launched else spec.title


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"
