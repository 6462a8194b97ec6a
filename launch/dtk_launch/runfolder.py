"""Whether a run may keep its files in a folder: a new or empty one, or that of a run; never somebody else's."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

from dtk_launch.errors import PlanError
from dtk_launch.job_record import JobRecord

_OURS = re.compile(
    r"plan\.json|plan\.tmp|plans|launcher(-.+)?\.log|job\.(sbatch|json|tmp)|ranks|nodes|hang\.json|verdict\.json|checkpoints"
    r"|step-[0-9]{8,}|snapshots|requeues\.jsonl|(start|goal)\.json|metrics\.jsonl|tensorboard|\.reserve-.+"
)
"""The run directory of docs/wire.md, and a folder of checkpoints."""
_HARMLESS = re.compile(r".*\.(out|err|log)|\.gitkeep|\.gitignore|\.DS_Store|\.nfs.*|lost\+found")
"""What a scheduler, a shell's `>`, a version control or a file system puts there before the first run."""
_KEYS = {"argv", "decisions", "run_dir"}
_CHECKPOINT = re.compile(r"step-[0-9]{8,}")
_SHOWN = 3


def is_run(folder: Path) -> bool:
    """Whether a run has begun in this folder, or was submitted with a snapshot of its code."""
    launched = (folder / "plan.json").is_file() and (folder / "ranks").is_dir()
    return launched or ((folder / "job.sbatch").is_file() and (folder / "snapshots").is_dir())


def check_run_folder(folder: Path) -> None:
    """Raise PlanError for a folder with content that no run has made. One that cannot be looked at is not judged here.

    What else stands in a folder that a run has had is the script's own.
    """
    try:
        if _has_a_plan(folder) or JobRecord.read(folder) is not None:  # of an array the runs are in folders of it
            return
        strangers = list(_strangers(folder))
        if not strangers or _has_run(folder):
            return
    except OSError:  # not there, no folder, not readable: to make it will tell
        return
    names = ", ".join(strangers[:_SHOWN]) + (" and more" if len(strangers) > _SHOWN else "")
    raise PlanError(
        f"the run directory {folder} is no run of dtk and not empty: it holds {names}; pass a --run-dir that is new or "
        f"empty, for example --run-dir {folder / 'dtk-run'}"
    )


def _strangers(folder: Path) -> Iterator[str]:
    """Names that no run directory has, few of them; a plan.json that is another program's is one."""
    found = 0
    with os.scandir(folder) as entries:
        for entry in entries:
            known = _OURS.fullmatch(entry.name) or _HARMLESS.fullmatch(entry.name)
            if not known or (entry.name == "plan.json" and _reads_as_another(folder)):
                yield entry.name
                found += 1
            if found > _SHOWN:
                return


def _plan(folder: Path) -> object:
    """What plan.json says; None if there is none, or none that can be read: a torn one may be a run's."""
    try:
        return json.loads((folder / "plan.json").read_bytes())
    except (OSError, ValueError):
        return None


def _has_a_plan(folder: Path) -> bool:
    values = _plan(folder)
    return isinstance(values, dict) and values.keys() >= _KEYS


def _reads_as_another(folder: Path) -> bool:
    return _plan(folder) is not None


def _has_run(folder: Path) -> bool:
    """Whether ranks have run here without a plan.json: on another node than the first, or under torchrun."""
    places = {"ranks": re.compile(r"[0-9]+\.json"), "checkpoints": _CHECKPOINT}
    for name, made in places.items():
        if (folder / name).is_dir() and any(made.fullmatch(path.name) for path in (folder / name).iterdir()):
            return True
    return False
