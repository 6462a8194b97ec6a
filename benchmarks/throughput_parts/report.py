"""Records -> the report. Pure: the report says nothing that is not in results.jsonl."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bench_parts.figures import Figure
from bench_parts.markdown import NOTHING, machine_table, status
from bench_parts.records import Record, Records
from bench_parts.statistics import QUIET

from . import grids, pictures
from .headlines import fit_lines, headlines
from .names import work_name
from .outcome import failures, fits
from .prose import limits, method
from .summary import WorkSummary, summarise


def render(records: Records) -> list[str | Figure]:
    """The report of one run."""
    summary, found = summarise(records), fits(records)
    machine = next(r for r in records if r["kind"] == "machine")
    end = next((r for r in records if r["kind"] == "end"), {"status": "unfinished"})
    lost = failures(records)
    parts: list[str | Figure] = ["# Training throughput", _status(end, lost), *_shared(summary)]
    lines = headlines(summary, machine) if summary else []
    lines += fit_lines(found)
    if lines:
        parts.append("\n".join(f"- {line}" for line in lines))
    if summary:
        parts += ["## Results", *_results(summary, machine)]
    if found:
        parts += ["### The largest batch that fits", grids.largest(found), _how_fitted(found)]
    if lost:
        parts += ["## What failed", "\n".join(f"- {name}: `{why}`" for name, why in lost.items())]
    if summary:
        parts += ["## How it was measured", *method(summary, machine)]
        parts += ["## What this does not show", "\n".join(f"- {line}" for line in limits(summary, machine))]
    elif not found:
        parts.append(NOTHING)
    parts += ["## Machine", machine_table(machine, **{"GPUs used": str(machine["options"]["gpus"])})]
    return [part for part in parts if part]


def _status(end: Record, lost: Mapping[str, str]) -> str:
    if end["status"] == "failed" and lost:
        return f"**Not all could be measured**: {len(lost)} failed, see below. The rest was measured in full."
    return status(end["status"])


def _results(summary: Sequence[WorkSummary], machine: Mapping[str, Any]) -> list[str | Figure]:
    weak = machine["options"].get("scaling") == "weak"
    parts: list[str | Figure] = [*pictures.ratios(summary, weak), grids.overview(summary, weak)]
    if len(summary) > 1:
        parts.append(grids.note(summary))
    for work in summary:
        name = work_name(work, summary, weak)
        parts.append(grids.head(work, name, machine["options"].get("size", "small"), weak))
        parts += [grids.rates(work), grids.note([work]), grids.parts(work), grids.resources(work)]
        parts += pictures.of_work(work, name)
    return parts


def _how_fitted(found: Sequence[Record]) -> str:
    limit = next((fit["limit_mib"] for fit in found if fit["limit_mib"] is not None), None)
    how = "The batch is doubled until it does not fit, then halved between, to one in sixteen; two steps each, alone."
    if limit is None:
        return f"{how} It fits if no rank runs out of GPU memory."
    return (
        f"{how} It fits if all processes together stay below {limit:,.0f} MiB of resident memory; a batch that is "
        "predicted to pass that is not tried."
    )


def _shared(summary: Sequence[WorkSummary]) -> list[str]:
    busy = [work.others_cores.median for work in summary if work.others_cores is not None]
    if not busy or max(busy) < QUIET:
        return []
    return [
        "**The machine was shared, so these ratios are not those of the strategies alone**: the limits below say how "
        "other programs shift them."
    ]
