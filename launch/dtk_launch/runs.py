"""`dtk runs`: the runs in a folder."""

from __future__ import annotations

import sys
from pathlib import Path

from dtk_launch.errors import PlanError
from dtk_launch.runref import runs_in
from dtk_launch.runview import read_run
from dtk_launch.streams import json_text
from dtk_launch.tables import RUN_COLUMNS, plain, run_json, run_row


def show(folder: Path, given: bool, as_json: bool) -> None:
    """Print the runs in `folder`, the newest first. Raises PlanError if it was `given` and is no folder."""
    if given and not folder.is_dir():
        raise PlanError(f"{folder} is no folder; pass the one that holds the run directories, such as runs")
    views = [read_run(run) for run in runs_in(folder)]
    views.sort(key=lambda view: (-(view.started or 0), view.name))
    if as_json:
        print(json_text([run_json(view, ranks=False) for view in views]))
    elif views:
        print(plain(RUN_COLUMNS, [run_row(view) for view in views]), end="")
    else:
        print(f"no runs in {folder}", file=sys.stderr)
