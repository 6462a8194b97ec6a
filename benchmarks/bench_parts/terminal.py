"""Progress on stderr, and the table at the end on stdout."""

from __future__ import annotations

import shutil
import sys
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING

from .records import Record

if TYPE_CHECKING:
    from rich.table import Table

_WIDE = 160  # columns where there is no terminal


def say(text: str, end: str = "\n") -> None:
    """Write to stderr; that nobody reads it any more (a terminal that was closed) is no reason to end."""
    with suppress(OSError):
        print(text, end=end, file=sys.stderr, flush=True)


class Progress:
    """One line that is overwritten on a terminal; elsewhere lines, of which there should be few."""

    def __init__(self) -> None:
        self.live = sys.stderr.isatty()

    def update(self, text: str) -> None:
        """Show what happens now."""
        if self.live:
            say(f"\r\x1b[2K{text[: shutil.get_terminal_size().columns - 1]}", end="")
        else:
            self.line(text)

    def line(self, text: str) -> None:
        """Print a line that stays."""
        say(f"\r\x1b[2K{text}" if self.live else text)

    def record(self, record: Record) -> None:
        """Show what was just written down; what is shown of it, if anything, a benchmark decides."""

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live:
            say("\r\x1b[2K", end="")


def print_table(table: Table) -> None:
    """In colour on a terminal; not broken into lines elsewhere. Nothing where it has no row."""
    from rich.console import Console

    class Plain(Console):
        def on_broken_pipe(self) -> None:
            raise  # rich would end with 1, which means something else; called where the error is caught

    if table.row_count:
        console = Plain(highlight=False)
        if not console.is_terminal:
            console.width = _WIDE
        console.print(table)
