"""The files of a result, and which of them say nothing any more when its records are replaced."""

from __future__ import annotations

import errno
import re
from pathlib import Path

NAME = "results.jsonl"
"""The records."""
REPORTS = ("report.md", "report.html")
"""What is made of them, beside plots."""
_FIGURE = re.compile(r"^!\[.*\]\(([^()/\s]+\.svg)\)$", re.MULTILINE)  # as bench_parts.markdown writes it


def report_that_is_a_folder(out: Path) -> Path | None:
    """Where a file of a result cannot be."""
    return next((out / name for name in (NAME, *REPORTS) if (out / name).is_dir()), None)


def clear_reports(out: Path) -> None:
    """Remove the report of the result in `out`, its plots too; without a result, nothing. Raises OSError."""
    if folder := report_that_is_a_folder(out):
        raise IsADirectoryError(errno.EISDIR, f"{folder} is a folder")
    if (out / NAME).exists():
        report = out / REPORTS[0]
        text = report.read_text(encoding="utf-8", errors="replace") if report.exists() else ""
        for name in (*_FIGURE.findall(text), *REPORTS):
            (out / name).unlink(missing_ok=True)
