"""Records -> the report. Pure: the report says nothing that is not in results.jsonl."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench_parts.figures import Figure
from bench_parts.markdown import NOTHING, machine_table, status
from bench_parts.records import Records

from .prose import headlines, limits, method
from .sections import section
from .summary import summarise, wrong
from .tables import SCOPES


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
        parts += ["\n".join(lines), *(block for part in summary.parts for block in section(part, setup))]
        parts += ["## How it was measured", method(machine, setup, summary)]
        parts += ["## What this does not show", limits(summary, setup)]
    else:
        parts += [NOTHING, "\n".join(_left_out(records))]
    parts += ["## Machine", machine_table(machine, **_rows(setup))]
    return [part for part in parts if part]


def _left_out(records: Records) -> list[str]:
    found = dict.fromkeys(
        f"- Left out: {r['operation']} by {r['backend']} {SCOPES[r['scope']]} ({r['why']})."
        for r in records
        if r["kind"] == "left_out"
    )
    return list(found)


def _rows(setup: Mapping[str, Any] | None) -> dict[str, str]:
    if setup is None:
        return {}
    interfaces = ", ".join(f"{name}={value}" for name, value in setup["interfaces"].items())
    rows = {"device": setup["device"], "nodes": str(setup["nodes"]), "interfaces": interfaces or "as found"}
    if setup["nccl"]:
        rows["nccl"] = setup["nccl"]
    return rows
