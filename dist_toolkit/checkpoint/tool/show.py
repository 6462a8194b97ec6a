"""`dtk ckpt show`: what one checkpoint is, for a person."""

from __future__ import annotations

from typing import Any

from dist_toolkit.checkpoint.layout import MANIFEST
from dist_toolkit.checkpoint.manifest import Manifest
from dist_toolkit.checkpoint.tool import tree
from dist_toolkit.checkpoint.tool.listing import to_json as record_json
from dist_toolkit.checkpoint.tool.outcome import FINE, FOUND, Outcome
from dist_toolkit.checkpoint.tool.places import choose
from dist_toolkit.checkpoint.tool.plain_state import decoded
from dist_toolkit.checkpoint.tool.records import Record
from dist_toolkit.checkpoint.tool.terminal import Style
from dist_toolkit.checkpoint.tool.units import (
    columns,
    count_text,
    metrics_text,
    printable,
    size_text,
    value_text,
    when_text,
)

_WIDTH = 100  # characters of a value, unless all is shown


def run(path: str, step: int | None, depth: int, everything: bool, style: Style) -> Outcome:
    """Show; exit code 1 if the record or the size of a file is damaged.

    Raises:
        UsageError: not a directory of checkpoints, or no such step.
    """
    storage, record = choose(path, step)
    lines = [style.bold(f"{storage.root}/{record.folder}"), *_about(record, style)]
    if record.manifest is not None:
        lines += [*_values(record.manifest, everything, style), ""]
        lines.append(style.bold("tensors") + f"  {count_text(len(record.manifest.tensors), 'tensor')}")
        tensors = tree.to_lines(tree.build(record.manifest.tensors), None if everything else depth, everything)
        lines += [f"  {line}" for line in tensors]
    return Outcome(FOUND if record.damage else FINE, {"root": storage.root, **to_json(record)}, lines)


def to_json(record: Record) -> dict[str, Any]:
    """All of the record but the chunks."""
    m = record.manifest
    if m is None:
        return record_json(record)
    return {
        **record_json(record),
        "token": m.token,
        "producer": dict(m.producer),
        "values": dict(m.values),
        "files": {name: file.size for name, file in m.files.items()},
        "tensors": {
            name: {"dtype": t.dtype, "shape": list(t.shape), "size": tree.size_of(t), "chunks": len(t.chunks)}
            for name, t in m.tensors.items()
        },
    }


def _about(record: Record, style: Style) -> list[str]:
    """The facts, one a line."""
    m = record.manifest
    rows = [["step", str(record.step)]]
    if m is not None:
        versions = ", ".join(
            printable(version if name == "by" else f"{name} {version}")
            for name, version in sorted(m.producer.items(), key=lambda item: item[0] != "by")
        )
        rows += [
            ["saved", when_text(m.created)],
            ["by", f"{versions or 'unknown'}; save {printable(m.token)}"],
            ["ranks", str(m.world_size)],
            ["strategy", printable(record.strategy)],
        ]
    files = f" in {count_text(len(m.files), 'file')} and {MANIFEST}" if m else ""
    rows.append(["size", size_text(record.size) + files])
    if m is not None:
        rows.append(["metrics", metrics_text(dict(m.metrics))])
    rows.append(["state", record.state])
    lines = columns(rows, set(), indent="  ")
    if record.damage:
        lines[-1] += ": " + style.bad(record.damage)
    return lines


def _values(manifest: Manifest, everything: bool, style: Style) -> list[str]:
    """The plain state, one part a line."""
    width = None if everything else _WIDTH
    rows = [[printable(name), value_text(decoded(value), width)] for name, value in manifest.values.items()]
    heading = style.bold("values") + f"  {count_text(len(rows), 'part')}"
    return ["", heading, *columns(rows, set(), indent="  ")]
