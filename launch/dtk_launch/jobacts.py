"""`dtk cancel` and `dtk attach`: what one does to a job, and inside it."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from dtk_launch.asking import ask, become
from dtk_launch.errors import PlanError, SubmitError
from dtk_launch.jobref import JobRef, find_job, now
from dtk_launch.runview import read_run
from dtk_launch.schedulers.base import Scheduler, failure
from dtk_launch.schedulers.slurm import Slurm
from dtk_launch.streams import json_text


def cancel(text: str, as_json: bool, cwd: Path) -> None:
    """End a job, or take it out of the queue, and say what that does. Raises PlanError, JobNotFound, SubmitError."""
    scheduler: Scheduler = Slurm()
    ref = _job(text, cwd, scheduler, "cancel")
    alive = [state for state in ref.states if not state.over]
    if alive:
        done = ask(scheduler.cancel_argv(ref.id, ref.cluster))
        if done.returncode != 0:
            raise SubmitError(f"job {ref.id} is not cancelled: {failure(done, scheduler)}")
    if as_json:
        was = {state.id: state.state for state in ref.states}
        print(json_text({"job_id": ref.id, "cancelled": bool(alive), "was": was, "run_dir": str(ref.folder)}))
    elif not alive:
        how = {state.state for state in ref.states} or {"forgotten by the scheduler"}
        print(f"job {ref.id} has ended already ({', '.join(sorted(how))}); nothing to cancel")
    elif any(state.ran is not None for state in alive):
        print(f"job {ref.id} is cancelled: its ranks get SIGTERM now, may save, and are killed after SLURM's KillWait")
    else:
        print(f"job {ref.id} is cancelled: it was {alive[0].state}, and no rank of it runs")


def attach(text: str, command: Sequence[str], node: str, cwd: Path) -> None:
    """Become `command`, or dtk top, inside the job. Raises PlanError, JobNotFound, SubmitError."""
    scheduler: Scheduler = Slurm()
    ref = _job(text, cwd, scheduler, "attach to")
    if ref.array:
        tasks = ", ".join(state.id for state in ref.states) or f"{ref.id}_0"
        raise PlanError(f"job {ref.id} is an array; pass one of its tasks: {tasks}")
    state = ref.states[0] if ref.states else None
    if state is None or state.state != "running":
        what = state.state + (f" ({state.reason})" if state.reason else "") if state is not None else "over"
        raise PlanError(
            f"job {ref.id} is {what}, and only a running one can be attached to; dtk status {ref.id} tells more"
        )
    terminal = sys.stdin.isatty() and sys.stdout.isatty()
    words = tuple(command) or (sys.executable, "-m", "dtk_launch", "top", str(ref.folder))
    inside = scheduler.inside_argv(ref.id, ref.cluster, node, terminal)
    try:
        become((*inside, *words))
    except OSError as error:
        raise SubmitError(f"{inside[0]} cannot be started: {error.strerror}; run it on a login node") from None


def _job(text: str, cwd: Path, scheduler: Scheduler, verb: str) -> JobRef:
    ref = find_job(text, cwd, scheduler)
    if not ref.id:
        where = ", ".join(read_run(ref.folder).hosts) or os.uname().nodename
        raise PlanError(
            f"nothing to {verb}: {ref.folder} is a run of dtk launch and no job; it is ended with Ctrl-C or SIGTERM to "
            f"its dtk on {where}, and dtk top watches it from here"
        )
    ref = ref if ref.states else now(ref, scheduler)
    if ref.silent:
        raise SubmitError(f"job {ref.id} cannot be asked for: {ref.silent}")
    return ref
