"""Runs and their ranks as lines of text and as JSON. Pure."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from dtk_launch.diagnose.words import printable
from dtk_launch.runview import RankView, RunView

RANK_COLUMNS = ("rank", "host", "state", "step", "steps/s", "loss", "heartbeat", "RSS", "CPU", "GPU", "")
_RIGHT = {"rank", "step", "steps/s", "loss", "heartbeat", "RSS", "CPU", "GPU", "ranks", "duration", "checkpoint"}
RUN_COLUMNS = ("run", "state", "started", "duration", "ranks", "step", "checkpoint", "verdict")


def header(view: RunView) -> list[str]:
    """The lines above a run's table."""
    lost = len({rank.host for rank in view.ranks if rank.state == "lost"})
    nodes = f"{view.nodes} nodes" if view.nodes > 1 else f"1 node ({', '.join(view.hosts) or '?'})"
    nodes += f" ({lost} lost)" if lost else ""
    facts = [f"{nodes} x {view.nproc} ranks" if view.nproc else nodes]
    facts += [f"for {duration(view.seconds)}"] if view.seconds is not None else []
    facts += [f"{view.restarts} restart{'s' if view.restarts > 1 else ''}"] if view.restarts else []
    facts.append(f"last checkpoint: step {view.checkpoint}" if view.checkpoint is not None else "no checkpoint")
    if view.until is not None and not view.over:
        eta = f", in about {duration(view.eta)}" if view.eta is not None else ""
        facts.append(f"to end at step {view.until}{eta}")
    return [f"{view.name}: {state_of(view)}{': ' + printable(view.why) if view.why else ''}", ", ".join(facts)]


def state_of(view: RunView) -> str:
    """The state, with its exit code where that is not the state's own."""
    return f"failed ({view.code})" if view.state == "failed" else view.state


def rank_rows(view: RunView) -> list[tuple[str, ...]]:
    """A row of RANK_COLUMNS for each rank."""
    return [_rank_row(view, rank) for rank in view.ranks]


def _rank_row(view: RunView, rank: RankView) -> tuple[str, ...]:
    state = f"ended {rank.code}" if rank.state == "ended" else rank.state
    logging = view.logging and rank.state not in ("starting", "lost")
    step = _step(view, rank) if logging else rank.steps
    return (
        str(rank.rank),
        rank.host or "-",
        state,
        "-" if step is None else str(step),
        number(rank.rate),
        number(view.metric[1]) if view.metric and logging else "-",
        "-" if rank.beat_age is None else age(rank.beat_age),
        size(rank.rss),
        "-" if rank.cpu is None else f"{rank.cpu:.0f}%",
        size(rank.gpu),
        mark(rank),
    )


def _step(view: RunView, rank: RankView) -> int | None:
    """The step that was logged, less the optimizer steps by which this rank is behind the one that has done most."""
    most = max((other.steps or 0 for other in view.ranks if other.state != "lost"), default=0)
    if view.step is None or rank.steps is None:
        return view.step
    return max(0, view.step - (most - rank.steps))


def mark(rank: RankView) -> str:
    """What is wrong with a rank's pace, '' if nothing."""
    found = ["late"] if rank.late else []
    if rank.slower is not None:
        found.append("straggler" if math.isinf(rank.slower) else f"straggler {rank.slower:.1f}x")
    return ", ".join(found)


def run_row(view: RunView) -> tuple[str, ...]:
    """A row of RUN_COLUMNS."""
    started = "-" if view.started is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(view.started))
    last = "-" if view.checkpoint is None else str(view.checkpoint)
    step = "-" if view.step is None else str(view.step)
    ranks = str(view.nodes * view.nproc) if view.nproc else "-"
    long = "-" if view.seconds is None else duration(view.seconds)
    return (view.folder.name, state_of(view), started, long, ranks, step, last, printable(view.why))


def plain(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """An aligned table, a line a row, however wide. No trailing blanks."""
    widths = [max(len(row[i]) for row in (columns, *rows)) for i in range(len(columns))]
    lines = []
    for row in (columns, *rows):
        cells = zip(row, widths, columns, strict=True)
        padded = (cell.rjust(width) if name in _RIGHT else cell.ljust(width) for cell, width, name in cells)
        lines.append("  ".join(padded).rstrip() + "\n")
    return "".join(lines)


def run_json(view: RunView, ranks: bool = True) -> dict[str, Any]:
    """A run as plain values; what is not a finite number is null."""
    values = asdict(view) | {"folder": str(view.folder)}
    values["metric"] = {view.metric[0]: _finite(view.metric[1])} if view.metric else None
    values["ranks"] = [{**asdict(rank), "slower": _finite(rank.slower), "mark": mark(rank)} for rank in view.ranks]
    if not ranks:
        del values["ranks"]
    return values


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def number(value: float | None) -> str:
    """Four digits; `-` for None."""
    return "-" if value is None else f"{value:.4g}"


def size(count: int | None) -> str:
    """`1.5 GiB`; `-` for None."""
    if count is None:
        return "-"
    value, unit = float(count), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1000:
            break
        value, unit = value / 1024, larger
    return f"{value:.3g} {unit}"


def age(seconds: float) -> str:
    """`3 s`, `5 min`, `2 h`, `3 d`."""
    for unit, length, limit in (("s", 1, 120), ("min", 60, 7200), ("h", 3600, 172800)):
        if seconds < limit:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds / 86400:.0f} d"


def duration(seconds: float) -> str:
    """`0:00:05`, `1 d 02:03:04`."""
    days, rest = divmod(int(seconds), 86400)
    hours, minutes = divmod(rest // 60, 60)
    clock = f"{minutes:02}:{rest % 60:02}"
    return f"{days} d {hours:02}:{clock}" if days else f"{hours}:{clock}"
