"""`dtk runs`: the runs in a folder."""

from __future__ import annotations

import sys
from pathlib import Path

from dtk_launch.errors import PlanError
from dtk_launch.runref import run_of, runs_in, task_of
from dtk_launch.runview import RunView, read_run
from dtk_launch.streams import json_text
from dtk_launch.tables import RUN_COLUMNS, plain, run_json, run_row


def show(folder: Path, given: bool, as_json: bool) -> None:
    """Print the runs in `folder`, the newest first, an array's tasks together.

    Raises PlanError if it was `given` and is no folder.
    """
    if given and not folder.is_dir():
        raise PlanError(f"{folder} is no folder; pass the one that holds the run directories, such as runs")
    views = [read_run(run) for run in runs_in(folder)]
    newest: dict[str, float] = {}
    for view in views:
        newest[_set(view)] = max(newest.get(_set(view), 0), view.started or 0)
    views.sort(key=lambda view: (-newest[_set(view)], _set(view), task_of(view.folder)))
    if as_json:
        print(json_text([run_json(view, ranks=False) for view in views]))
    elif views:
        print(plain(RUN_COLUMNS, [(run_of(view.folder), *run_row(view)[1:]) for view in views]), end="")
    else:
        print(f"no runs in {folder}", file=sys.stderr)


def _set(view: RunView) -> str:
    """The run, or the array that it is a task of."""
    return str(view.folder.parent if task_of(view.folder) >= 0 else view.folder)
