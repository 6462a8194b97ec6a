"""Pieces of a report in Markdown. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .figures import Figure
from .words import in_words

RATIOS = "A ratio is the median of the ratios of the rounds, which is not the ratio of the medians beside it."
"""To stand with a table of times and ratios."""

NOTHING = "Nothing was measured."
"""What a report says in the place of results, where there are none."""

_ENDED = {"interrupted": "The run was interrupted", "failed": "The run failed", "unfinished": "The run did not finish"}


def text(report: Sequence[str | Figure]) -> str:
    """A whole report; figures are files beside it."""
    parts = (part if isinstance(part, str) else f"![{in_words(part)}]({part.name}.svg)" for part in report)
    return "\n\n".join(part for part in parts if part) + "\n"


def status(ended: str, where: str = "") -> str:
    """Sentences where a run is not complete, else nothing. `where` says what failed."""
    if ended == "complete":
        return ""
    what = f"**{_ENDED[ended]}**: {where}." if where else f"**{_ENDED[ended]}.**"
    return f"{what} What follows is from what was measured until then."


def row(*cells: str) -> str:
    """A line of a table."""
    return f"| {' | '.join(cells)} |"


def count(number: int, noun: str) -> str:
    """`1 round`, `2 rounds`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def machine_table(machine: Mapping[str, Any], **more: str) -> str:
    """The record `machine` as a table, with other rows after the CPU's."""
    commit = machine["commit"] or "an installed copy"
    if machine["uncommitted_changes"]:
        commit += " with uncommitted changes"
    versions = {
        "torch": machine["torch"],
        "Python": machine["python"],
        "dist-toolkit": machine["dist_toolkit"],
        **machine.get("libraries", {}),
    }
    rows = {
        "CPU": f"{machine['cpu']}, {count(machine['cores'], 'core')} used",
        **more,
        "memory": f"{machine['memory_gib']} GiB",
        "system": machine["system"],
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "environment": ", ".join(f"{name}={value}" for name, value in machine["environment"].items()) or "-",
        "commit": commit,
        "started": machine["started"],
    }
    return "\n".join(["| | |", "|---|---|", *(row(*pair) for pair in rows.items())])
