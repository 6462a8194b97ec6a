"""results.jsonl: one JSON object a line, written out at once: an interrupted run keeps what it measured."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from .arguments import UsageError
from .stale import NAME, clear_reports

Record = Mapping[str, Any]
"""One JSON object, with a `kind`."""
Records = Sequence[Record]


class RecordFile:
    """The file, open for writing. The first record is of kind `machine`, the last of kind `end`."""

    def __init__(self, folder: Path, first: Records) -> None:
        """Create the folder if need be, and put a file with the records `first` in the place of an older one.

        Raises:
            UsageError: that cannot be.
        """
        new = folder / f"{NAME}.new"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = open(new, "w", encoding="utf-8")  # noqa: SIM115  # closed in __exit__
            for record in first:
                self.add(record)
            clear_reports(folder)
            new.replace(folder / NAME)
        except OSError as error:
            with suppress(OSError):
                new.unlink()
            raise UsageError(f"cannot write to --out {folder} ({error.strerror}); pass another --out") from None

    def add(self, record: Record) -> None:
        """Append a line."""
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()

    def __enter__(self) -> RecordFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def read_records(folder: Path) -> list[dict[str, Any]]:
    """All records of a run; a last line that was not written to its end is left out.

    Raises:
        OSError: there is no such file.
        ValueError: it holds something else.
    """
    lines = (folder / NAME).read_text(encoding="utf-8").splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines.pop()
    try:
        records = [json.loads(line) for line in lines]
    except json.JSONDecodeError as error:
        raise ValueError(f"{folder / NAME} is damaged: a line is not JSON ({error.msg})") from None
    if not records or any(not isinstance(r, dict) or "kind" not in r for r in records):
        raise ValueError(f"{folder / NAME} is not the result of a benchmark")
    return records
