"""`dtk logs` of a job: waits for one that is in the queue, and goes on while it may come back."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from dtk_launch import logs
from dtk_launch.errors import PlanError
from dtk_launch.jobref import JobRef, find_job, now
from dtk_launch.logs import LogOptions
from dtk_launch.runview import RunView
from dtk_launch.schedulers.base import Scheduler
from dtk_launch.schedulers.slurm import Slurm

_ASK_EVERY = 15.0  # seconds between two questions to the scheduler while the job waits, which may be for days
_ASK_AT_END = 1.0  # and once the run is over


def find(text: str, cwd: Path) -> JobRef:
    """The job or the run whose logs are meant. Raises PlanError for a whole array, and what find_job does."""
    ref = find_job(text, cwd, Slurm())
    if ref.array:
        tasks = [state.id for state in ref.states] or [f"{ref.id}_{p.name[5:]}" for p in ref.folder.glob("task-*")]
        raise PlanError(f"job {ref.id} is an array; pass one of its tasks: {', '.join(sorted(tasks)) or ref.id + '_0'}")
    if ref.later:
        raise PlanError(
            f"job {ref.id} has no logs of ranks any more: {ref.folder} is now of job {ref.later}; pass that one"
        )
    return ref


def show(ref: JobRef, options: LogOptions, follow: bool, environ: Mapping[str, str]) -> None:
    """Print the logs, and say on stderr where there are none. SIGINT leaves the job as it is."""
    following = Following(ref)
    if ref.record is not None and ref.record.benchmark:  # it has no ranks of its own, and its words are the job's
        options = replace(options, alone=Path(ref.record.log))
    try:
        found = logs.show(ref.folder, options, follow, environ, following.over)
    except SystemExit:  # interrupt.py
        following.left()
        raise
    if not found and ref.id:
        following.note(nothing_written(ref))


class Following:
    """Whether more may come of a job's run; says on stderr what it waits for."""

    def __init__(self, ref: JobRef) -> None:
        """Nothing is asked yet."""
        self.ref = ref
        self._scheduler: Scheduler = Slurm()
        self._next = 0.0
        self._said = ""

    def over(self, view: RunView) -> bool:
        """Whether nothing more will come. Asks the scheduler where the run directory cannot know."""
        if not self.ref.id:
            return view.over
        if not view.over and view.state != "starting":
            self._said = ""
            return False
        if time.monotonic() < self._next:
            return False
        self.ref = now(self.ref, self._scheduler)
        waits = view.state == "starting" or any(state.state == "pending" for state in self.ref.states)
        self._next = time.monotonic() + (_ASK_EVERY if waits or self.ref.silent else _ASK_AT_END)
        if self.ref.silent:
            self._tell(self.ref.silent)
            return view.over and view.state != "preempted"  # that one is put back into the queue
        self._tell(self.waits_for())
        return self.ref.over

    def waits_for(self) -> str:
        """What a job in the queue waits for; '' of another."""
        state = self.ref.states[0] if self.ref.states else None
        if state is None or state.state != "pending":
            return ""
        why = f" ({state.reason}{': ' + state.why if state.why else ''})" if state.reason else ""
        return f"job {self.ref.id} is pending{why}; waiting for its output, Ctrl-C leaves the job as it is"

    def left(self) -> None:
        """Say that Ctrl-C has ended the waiting alone."""
        if self.ref.id:
            self.note(f"no longer following; job {self.ref.id} goes on, dtk cancel {self.ref.id} ends it")

    def note(self, text: str) -> None:
        """Say something beside the logs."""
        print(f"dtk: note: {text}", file=sys.stderr, flush=True)

    def _tell(self, text: str) -> None:
        if text and text != self._said:
            self.note(text)
        self._said = text or self._said


def nothing_written(ref: JobRef) -> str:
    """Why there is nothing to print, and where to look."""
    waiting = Following(now(ref, Slurm()))
    state = waiting.ref.states[0] if waiting.ref.states else None
    if words := waiting.waits_for():
        return words.partition("; waiting")[0] + "; dtk logs -f waits for its output"
    log = (state.log if state is not None else "") or (ref.record.log if ref.record is not None else "")
    how = f"job {ref.id} is {state.state}, and " if state is not None else ""
    there = f"the job's own log is {log}" if log and Path(log).exists() else "dtk status tells more"
    return f"{how}no rank of it has written anything; {there}"
