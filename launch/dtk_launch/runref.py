"""Which run a command means: a name under ./runs, or a path."""

from __future__ import annotations

import os
import re
from pathlib import Path

from dtk_launch.errors import DtkError, nearest

_SHOWN = 10  # names of runs in an error
_TASK = re.compile(r"task-(\d+)")


class RunNotFound(DtkError):
    """There is no such run."""


def is_run(folder: Path) -> bool:
    """Whether a folder is a run directory (docs/wire.md)."""
    return os.path.isfile(folder / "plan.json") or os.path.isdir(folder / "ranks")  # noqa: PTH112, PTH113 - never raise


def runs_in(folder: Path) -> list[Path]:
    """The run directories in `folder`, by name, after each those of an array's tasks in it, by number."""
    try:
        return [run for path in sorted(folder.iterdir()) for run in (path, *_tasks(path)) if is_run(run)]
    except OSError:
        return []


def run_of(folder: Path) -> str:
    """The name of a run directory in the folder of all runs: `digits`, of an array's task `digits/task-3`."""
    return f"{folder.parent.name}/{folder.name}" if _TASK.fullmatch(folder.name) else folder.name


def task_of(folder: Path) -> int:
    """The number of the array's task whose run directory this is, -1 for none."""
    match = _TASK.fullmatch(folder.name)
    return int(match[1]) if match else -1


def _tasks(folder: Path) -> list[Path]:
    try:
        return sorted((path for path in folder.iterdir() if task_of(path) >= 0), key=task_of)
    except OSError:  # no folder
        return []


def find_run(run: str, cwd: Path) -> Path:
    """Absolute path of the run directory that `run` means. Raises RunNotFound, which names those that are there."""
    asked = cwd / Path(run).expanduser()
    for folder in (cwd / "runs" / run, asked.parent if asked.name == "plan.json" else asked):
        if is_run(folder):
            return folder.resolve()
    if os.path.exists(asked):  # noqa: PTH110 - a name may be too long to ask for
        what = "a file" if asked.is_file() else "no run directory: it has neither plan.json nor ranks/"
        raise RunNotFound(f"{asked} is {what}; pass the name of a run in ./runs, or the path of a run directory")
    known = [run_of(path) for path in runs_in(cwd / "runs")]
    guess = nearest(run, known)
    names = ", ".join(known[:_SHOWN]) + (f" and {len(known) - _SHOWN} more" if len(known) > _SHOWN else "")
    there = f"known: {names}" + (f"; did you mean {guess}?" if guess else "") if known else "there are none"
    raise RunNotFound(f"no run {run!r}: neither {cwd / 'runs' / run} nor {asked} exists; {there}")
