"""What a person sees: one line of progress, in place on a terminal, and the table at the end."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from .summary import LoopSummary, Summary
from .tables import BASELINE, SAME_OPTIONS

_WIDE = 160  # columns where there is no terminal
_EVERY = 10  # rounds between two lines where they cannot be overwritten


class Progress:
    """Progress on stderr: one line that is overwritten on a terminal; elsewhere a line now and then."""

    def __init__(self, rounds: int) -> None:
        self._rounds, self._shown = rounds, -1
        self._live = sys.stderr.isatty()

    def update(self, text: str) -> None:
        """Show what happens now."""
        if self._live:
            sys.stderr.write(f"\r\x1b[2K{text[: shutil.get_terminal_size().columns - 1]}")
            sys.stderr.flush()
        else:
            self.line(text)

    def line(self, text: str) -> None:
        """Print a line that stays."""
        print(f"\r\x1b[2K{text}" if self._live else text, file=sys.stderr, flush=True)

    def record(self, record: Mapping[str, Any]) -> None:
        """Show where the ranks are."""
        if record["kind"] == "left_out":
            self.line(f"left out: {record['loop']} ({record['why']})")
        elif record["kind"] == "setup":
            self.update("warming up ...")
        elif record["kind"] == "block" and record["round"] != self._shown:
            self._shown = record["round"]
            if self._live or self._shown % _EVERY == 0:
                self.update(f"round {self._shown} of {self._rounds}" if self._shown else "a round of warm-up ...")

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            sys.stderr.write("\r\x1b[2K")
            sys.stderr.flush()


def show(summary: Summary) -> None:
    """Print the table on stdout, in colour on a terminal."""
    from rich.console import Console
    from rich.table import Table

    compared = any(loop.wrapper for feed in summary.feeds for loop in feed.loops)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for head in ("feed", "loop"):
        table.add_column(head, no_wrap=True)
    tuned = (f"time / {SAME_OPTIONS} (95 %)",) if compared else ()
    for head in ("ms a step", f"time / {BASELINE} (95 %)", *tuned, "weights"):
        table.add_column(head, justify="right", no_wrap=True)
    for feed in summary.feeds:
        for loop in feed.loops:
            table.add_row(feed.feed, *_cells(loop, compared))
    if table.row_count:
        console = Console(highlight=False)
        if not console.is_terminal:
            console.width = _WIDE
        console.print(table)


def _cells(loop: LoopSummary, compared: bool) -> tuple[str, ...]:
    ratio, wrapper = loop.ratio, loop.wrapper
    tuned = f"{wrapper.spread.median:.3f} ({wrapper.low:.3f} - {wrapper.high:.3f})" if wrapper else ""
    return (
        loop.loop,
        f"{loop.step_ms.median:.3f}",
        f"[bold]{ratio.spread.median:.3f}[/] ({ratio.low:.3f} - {ratio.high:.3f})" if ratio else "",
        *((tuned,) if compared else ()),
        {True: "identical", False: "close", None: ""}[loop.identical],
    )
