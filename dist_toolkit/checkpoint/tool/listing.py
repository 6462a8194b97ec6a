"""`dtk ckpt ls`: what a directory of checkpoints holds."""

from __future__ import annotations

from typing import Any

from dist_toolkit.checkpoint.tool.outcome import FINE, FOUND, Outcome
from dist_toolkit.checkpoint.tool.places import directory
from dist_toolkit.checkpoint.tool.records import Record, survey
from dist_toolkit.checkpoint.tool.terminal import Style
from dist_toolkit.checkpoint.tool.units import columns, count_text, metrics_text, size_text, when_text

_HEADINGS = ["step", "saved", "size", "ranks", "strategy", "metrics", "state"]
_MEANING = {
    "uncommitted": "a save that did not finish, or one under way",
    "replaced": "a newer save of the same step takes its place",
    "being deleted": "what a deletion left behind",
    "set aside": "the run went back to an earlier step",
}


def run(root: str, style: Style) -> Outcome:
    """List; exit code 1 if one that counts is damaged, or of another format.

    Raises:
        UsageError: not a directory of checkpoints.
    """
    storage = directory(root)
    records = survey(storage)
    damaged = any(record.counts and record.damage for record in records)
    data = {"root": storage.root, "checkpoints": [to_json(record) for record in records]}
    return Outcome(FOUND if damaged else FINE, data, to_lines(storage.root, records, style))


def to_json(record: Record) -> dict[str, Any]:
    """One line of the list."""
    m = record.manifest
    return {
        "folder": record.folder,
        "step": record.step,
        "state": record.state,
        "damage": record.damage or None,
        "size": record.size,
        "created": m.created if m else None,
        "world_size": m.world_size if m else None,
        "strategy": m.values.get("strategy") if m else None,
        "metrics": dict(m.metrics) if m else None,
    }


def to_lines(root: str, records: list[Record], style: Style) -> list[str]:
    """A heading, and a line for each."""
    rows = [_HEADINGS, *([*_cells(record), ""] for record in records)]
    heading, *lines = columns(rows, right={0, 2, 3})
    width = heading.rindex(_HEADINGS[-1])
    whole = sum(record.state == "committed" for record in records)
    total = size_text(sum(record.size for record in records))
    return [
        f"{root}: {count_text(whole, 'committed checkpoint')}, {total} in all",
        style.bold(heading),
        *(line.ljust(width) + _state(record, style) for line, record in zip(lines, records, strict=True)),
    ]


def _cells(record: Record) -> list[str]:
    m = record.manifest
    if m is None:
        return [str(record.step), "-", size_text(record.size), "-", "-", "-"]
    about = [str(m.world_size), record.strategy, metrics_text(dict(m.metrics))]
    return [str(record.step), when_text(m.created), size_text(record.size), *about]


def _state(record: Record, style: Style) -> str:
    text = record.state
    is_explained = text in _MEANING
    if is_explained:
        text = style.dim(f"{text} ({record.folder}: {_MEANING[text]})")
    elif not record.damage:
        text = style.good(text)
    if record.damage:
        text = style.bad(f"{text}; {record.damage}" if is_explained else f"{text}: {record.damage}")
    return text
