"""`dtk top`: a run's ranks, in place on a terminal, else as plain lines."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dtk_launch.diagnose.evidence import PREEMPTED
from dtk_launch.runview import RankView, RunView, read_run
from dtk_launch.streams import json_text
from dtk_launch.tables import RANK_COLUMNS, header, mark, plain, rank_rows, run_json

if TYPE_CHECKING:
    from rich.console import Group

_LIVE_INTERVAL = 2.0
_COLOURS = {"running": "green", "ended": "green", "failed": "red", "dead": "red", "preempted": "yellow"}
_DISPENSABLE = ("CPU", "host", "loss", "GPU", "RSS", "heartbeat")  # in a narrow terminal, in this order


def show(folder: Path, once: bool, as_json: bool, interval: float | None) -> None:
    """Show the run until q or Ctrl-C. `once`, or no terminal and no interval: one table."""
    with contextlib.suppress(KeyboardInterrupt):
        if not once and not as_json and sys.stdout.isatty():
            _live(folder, interval or _LIVE_INTERVAL)
        elif once or interval is None:
            _print(read_run(folder), as_json, indent=2)
        else:
            _repeat(folder, as_json, interval)


def _repeat(folder: Path, as_json: bool, interval: float) -> None:
    """A table, or with JSON a line, each `interval` seconds until the run is over."""
    while True:
        view = read_run(folder)
        _print(view, as_json, indent=None)
        if view.over:
            return
        time.sleep(interval)
        if not as_json:
            print()


def _print(view: RunView, as_json: bool, indent: int | None) -> None:
    if as_json:
        print(json_text(run_json(view), indent), flush=True)
    else:
        print(*header(view), plain(RANK_COLUMNS, rank_rows(view)), sep="\n", end="", flush=True)


def _live(folder: Path, interval: float) -> None:
    from rich.console import Console
    from rich.live import Live

    console = Console(highlight=False)
    with _keys() as quits, Live(console=console, auto_refresh=False) as live:
        while True:
            live.update(_drawing(read_run(folder), console.width, console.height), refresh=True)
            if quits(interval):
                return


def _drawing(view: RunView, width: int, height: int) -> Group:
    """The run as rich draws it. Ranks that do not fit are left out, the conspicuous ones last."""
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    rows = rank_rows(view)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    columns = fitting(rows, width)
    for name in (RANK_COLUMNS[i] for i in columns):
        table.add_column(name, justify="left" if name in ("host", "state", "") else "right", no_wrap=True)
    order = range(len(rows))
    room = max(1, height - len(header(view)) - 5)
    odd = [i for i in order if _style(view.ranks[i])]
    kept = set([*odd, *(i for i in order if i not in odd)][:room])
    for i in sorted(kept):
        table.add_row(*(Text(rows[i][column]) for column in columns), style=_style(view.ranks[i]))
    first, *rest = (Text(line) for line in header(view))
    first.stylize("red" if view.stuck else _COLOURS.get(view.state, ""))
    left = len(rows) - len(kept)
    last = f"and {left} more ranks (dtk top --once shows all); " if left else ""
    return Group(first, *rest, table, Text(f"{last}q leaves", style="dim"))


def fitting(rows: Sequence[Sequence[str]], width: int) -> list[int]:
    """The columns of RANK_COLUMNS to show in so many characters: those that say something, by need."""
    wide = {
        name: max(len(name), *(len(row[i]) for row in rows))
        for i, name in enumerate(RANK_COLUMNS)
        if any(row[i] not in ("", "-") for row in rows)
    }
    for name in _DISPENSABLE:
        if sum(wide.values()) + 2 * len(wide) > width:
            wide.pop(name, None)
    return [i for i, name in enumerate(RANK_COLUMNS) if name in wide]


def _style(rank: RankView) -> str:
    """Colour of a conspicuous rank, '' for others."""
    if rank.state == "killed" or rank.code not in (None, 0, PREEMPTED):
        return "red"
    return "yellow" if mark(rank) else ""


@contextlib.contextmanager
def _keys() -> Iterator[Any]:
    """A function that waits so many seconds and says whether q was pressed meanwhile."""
    if sys.stdin is None or not sys.stdin.isatty():  # Ctrl-C still leaves
        yield time.sleep
        return
    import termios
    import tty

    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor)
        yield lambda seconds: _pressed(descriptor, seconds)
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _pressed(descriptor: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        if select.select([descriptor], [], [], left)[0]:
            data = os.read(descriptor, 64)
            if not data or b"q" in data.lower():
                return True
    return False
