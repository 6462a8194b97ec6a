"""Numbers, times and names as a person reads them. Pure."""

from __future__ import annotations

import datetime
import json
from typing import Any


def size_text(count: int) -> str:
    """Bytes in binary units: 17 B, 1.2 GiB."""
    if count < 1024:
        return f"{count} B"
    value = float(count)
    for unit in ("KiB", "MiB", "GiB"):
        value /= 1024
        if value < 1023.95:  # else it would read 1024.0
            return f"{value:.1f} {unit}"
    return f"{value / 1024:.1f} TiB"


def when_text(created: str) -> str:
    """A time of ISO 8601 in UTC, to the second; as it stands where it is none."""
    try:
        moment = datetime.datetime.fromisoformat(created)
        return f"{moment.astimezone(datetime.timezone.utc):%Y-%m-%d %H:%M:%S} UTC"
    except (ValueError, OverflowError):
        return printable(created)


def count_text(count: int, word: str) -> str:
    """1 file, 2 files."""
    return f"{count:,} {word}{'' if count == 1 else 's'}"


def printable(text: str) -> str:
    """The text with what a terminal would act on (escape sequences, line ends) written as escapes."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def value_text(value: Any, width: int | None = None) -> str:
    """A plain value as JSON on one line, cut at `width` characters."""
    text = printable(json.dumps(value, ensure_ascii=False))
    return text if width is None or len(text) <= width else f"{text[: width - 4]} ..."


def metrics_text(metrics: dict[str, float]) -> str:
    """accuracy 0.975, loss 0.1; - where there are none."""
    return ", ".join(f"{printable(name)} {value:.6g}" for name, value in metrics.items()) or "-"


def columns(rows: list[list[str]], right: set[int], indent: str = "") -> list[str]:
    """Lines with the cells of each column below each other; the columns `right` are set to the right."""
    if not rows:
        return []
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append((indent + "  ".join(cells)).rstrip())
    return lines
