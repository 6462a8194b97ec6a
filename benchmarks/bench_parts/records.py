"""results.jsonl: one JSON object a line, written out at once: an interrupted run keeps what it measured."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from .arguments import UsageError

NAME = "results.jsonl"

Record = Mapping[str, Any]
"""One JSON object, with a `kind`."""
Records = Sequence[Record]


class RecordFile:
    """The file, emptied and open for writing. The first record is of kind `machine`, the last of kind `end`."""

    def __init__(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "report.md").touch()
            self._file = open(folder / NAME, "w", encoding="utf-8")  # noqa: SIM115  # closed in __exit__
        except OSError as error:
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
    """All records of a run."""
    with open(folder / NAME, encoding="utf-8") as file:
        return [json.loads(line) for line in file]
