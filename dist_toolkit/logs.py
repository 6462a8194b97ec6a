"""Rank-aware logs, and the progress line of rank 0."""

from __future__ import annotations

import logging
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

LIVE_BYTES = 200
"""Size of the live file: one line, padded and overwritten in place (docs/wire.md)."""


def logger(rank: int, world_size: int) -> logging.Logger:
    """The logger of this package: rank 0 from INFO, other ranks from WARNING with their rank in front.

    It writes to stderr, once: a second call changes the level and the prefix, not the number of handlers.
    """
    log = logging.getLogger("dist_toolkit")
    prefix = f"[rank {rank}] " if world_size > 1 and rank else ""
    for handler in [*log.handlers]:
        if isinstance(handler, _StderrHandler):
            log.removeHandler(handler)
    handler = _StderrHandler()
    handler.setFormatter(logging.Formatter(f"{prefix}%(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO if rank == 0 else logging.WARNING)
    log.propagate = False
    return log


if TYPE_CHECKING:
    _Handler = logging.StreamHandler[TextIO]
else:  # Python 3.10 cannot subscript it
    _Handler = logging.StreamHandler


class _StderrHandler(_Handler):
    """Writes to whatever sys.stderr is at the moment of the message."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:
        """sys.stderr, as it is now."""
        return sys.stderr

    @stream.setter
    def stream(self, value: TextIO) -> None:
        pass


class Progress:
    """One line of progress on rank 0, as the place allows; nothing on other ranks.

    On a terminal the line is rewritten in place. Under `dtk launch` on a terminal it goes to a small file that dtk
    shows in place. Elsewhere (a log, a pipe) nothing is rewritten, and only `line` prints.
    """

    def __init__(self, enabled: bool, live_file: Path | None = None, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout
        self._enabled = enabled
        self._tty = enabled and live_file is None and self._stream.isatty()
        self._live: int | None = None
        self._shown = False
        self._next = 0.0
        if enabled and live_file is not None:
            live_file.parent.mkdir(parents=True, exist_ok=True)
            self._live = os.open(live_file, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)

    @property
    def wanted(self) -> bool:
        """Whether `update` would show something now: at most ten times a second, and only where it can."""
        return (self._tty or self._live is not None) and time.monotonic() >= self._next

    def update(self, text: str) -> None:
        """Show `text` in place of the last progress line."""
        if not self.wanted:
            return
        self._next = time.monotonic() + 0.1
        if self._live is not None:
            self._write_live(text)
        else:
            self._stream.write("\r\x1b[K" + text)
            self._stream.flush()
        self._shown = True

    def line(self, text: str) -> None:
        """Print a whole line on rank 0 that stays."""
        if self._enabled:
            self._clear()
            print(text, file=self._stream, flush=True)

    def close(self) -> None:
        """Take the progress line away."""
        self._clear()
        if self._live is not None:
            os.close(self._live)
            self._live = None

    def _clear(self) -> None:
        if not self._shown:
            return
        self._shown = False
        if self._live is not None:
            self._write_live("")
        else:
            self._stream.write("\r\x1b[K")
            self._stream.flush()

    def _write_live(self, text: str) -> None:
        data = text.replace("\n", " ").encode()[: LIVE_BYTES - 1]
        data = data.decode(errors="ignore").encode().ljust(LIVE_BYTES - 1) + b"\n"
        if self._live is not None:
            os.pwrite(self._live, data, 0)
