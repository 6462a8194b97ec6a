"""`ranks/<rank>.json` read back: what each rank has recorded of its start and its end."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_WELL = (0, 75)  # 75: it has saved and wants to be started again


@dataclass(frozen=True)
class RankExit:
    """How a rank said that it ended. `type` is the exception's, None after a clean end, but for a
    library's own SystemExit.

    `where` is the innermost line of the user's code (file, line, function, text); `blames` the ranks that the exception
    names as the ones at fault. `mono_ns` is the time on the clock that all processes of the host share.
    """

    code: int
    type: str | None
    message: str
    traceback: str
    time_ns: int
    mono_ns: int | None = None
    where: dict[str, Any] | None = None
    blames: tuple[int, ...] | list[int] = ()
    related: tuple[dict[str, Any], ...] | list[dict[str, Any]] = ()
    """Of the exceptions behind it and in it: `how` (caused by, while handling, holds, raised in a worker process),
    `type`, `message`, `where`; of workers that had ended before it, too (children.py)."""


@dataclass(frozen=True)
class RankRecord:
    """`ranks/<rank>.json` (docs/wire.md). `exit` is None while the rank runs, and for ever if it was killed."""

    rank: int
    local_rank: int
    pid: int
    host: str
    restart: int
    supervisor: str | None
    started_ns: int
    vitals: int | None = None
    exit: RankExit | None = None
    stacks: dict[str, int] | None = None
    """The `signal` at which the rank writes its stacks, and the `fd` of the file; None: it does not."""
    unwritten: str = ""
    """Why the record could not be written, in the system's words; it came through the rank's page (vitals.py) then."""

    @property
    def failure(self) -> str:
        """What ended the script, in a word, though the process may still be there; '' where it did not fail."""
        if self.exit is None or self.exit.code in _WELL:
            return ""
        plain = self.exit.type in (None, "SystemExit")
        return f"exit code {self.exit.code}" if plain else str(self.exit.type)

    @classmethod
    def read(cls, path: Path) -> RankRecord | None:
        """The record, or None if there is none that can be read."""
        try:
            return cls.parse(path.read_bytes())
        except OSError:
            return None

    @classmethod
    def parse(cls, text: bytes) -> RankRecord | None:
        """The record of this JSON; None if it is none."""
        try:
            fields: dict[str, Any] = json.loads(text)
            ended = fields.pop("exit", None)
            return cls(**fields, exit=RankExit(**ended) if ended else None)
        except (ValueError, TypeError, AttributeError):
            return None
