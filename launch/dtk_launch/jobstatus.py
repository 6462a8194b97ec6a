"""`dtk status`: a job as the scheduler sees it, and its run as the run directory tells it."""

from __future__ import annotations

import statistics
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dtk_launch.asking import ask
from dtk_launch.diagnose.words import printable
from dtk_launch.errors import SubmitError
from dtk_launch.jobref import JobRef, find_job, now, of_states, submitted_in
from dtk_launch.last_start import as_of
from dtk_launch.runref import run_of
from dtk_launch.runview import RunView, read_run
from dtk_launch.schedulers.base import JobState, Scheduler, failure
from dtk_launch.schedulers.slurm import Slurm
from dtk_launch.streams import json_text
from dtk_launch.tables import duration, header, number, plain, run_json, state_of

_COLUMNS = ("job", "run", "state", "nodes", "ran", "left", "step", "steps/s")


@dataclass(frozen=True)
class JobView:
    """One job. `state` None: the scheduler has forgotten it, or was not asked. `run` None: nothing of it has run yet.

    `later`: the job that has the run directory now, '' if it is still this one. `sweep`: its arguments of --sweep.
    """

    id: str
    folder: Path
    state: JobState | None
    run: RunView | None
    log: str = ""
    later: str = ""
    sweep: str = ""

    @property
    def step(self) -> int | None:
        """The last step that was logged; of a run that does not log, the optimizer steps since its start."""
        if self.run is None:
            return None
        return (
            self.run.step if self.run.logging else max((rank.steps or 0 for rank in self.run.ranks), default=0) or None
        )

    @property
    def rate(self) -> float | None:
        """Steps a second of the median rank, while it runs."""
        rates = [rank.rate for rank in self.run.ranks if rank.rate is not None] if self.run is not None else []
        return statistics.median(rates) if rates and self.run is not None and self.run.state == "running" else None

    @property
    def left(self) -> float | None:
        """Seconds to the time limit, while it runs."""
        if self.state is None or self.state.state != "running" or self.state.limit is None or self.state.ran is None:
            return None
        return max(0.0, self.state.limit - self.state.ran)

    @property
    def steps_left(self) -> int | None:
        """How many steps fit into that at the present rate."""
        return int(self.left * self.rate) if self.left is not None and self.rate is not None else None


def show(text: str, as_json: bool, cwd: Path) -> None:
    """Print one job, each task of an array, or without `text` this user's jobs. Raises what find_job does."""
    scheduler: Scheduler = Slurm()
    if not text:
        _table(mine(scheduler), as_json)
        return
    ref = find_job(text, cwd, scheduler)
    ref = ref if ref.states or ref.silent else now(ref, scheduler)
    if ref.silent:
        print(f"dtk: note: {ref.silent}; what follows is from the run directory alone", file=sys.stderr)
    views = views_of(ref)
    if as_json or len(views) > 1:
        _table(views, as_json)
    else:
        print("\n".join(words(views[0])))


def views_of(ref: JobRef) -> list[JobView]:
    """A view of the job, of an array one of each task that is known."""
    log = ref.record.log if ref.record is not None else ""
    if ref.states:
        return [
            JobView(
                state.id,
                ref.run_dir(state),
                state,
                _run(ref, ref.run_dir(state), state),
                state.log or log,
                ref.later,
                _sweep(ref, state.id),
            )
            for state in ref.states
        ]
    tasks = sorted(ref.folder.glob("task-*")) if ref.array else []
    if tasks:
        ids = [f"{ref.id}_{task.name[5:]}" for task in tasks]
        return [
            JobView(number, task, None, _run(ref, task), log, sweep=_sweep(ref, number))
            for number, task in zip(ids, tasks, strict=True)
        ]
    return [JobView(ref.id, ref.folder, None, _run(ref, ref.folder), log, sweep=_sweep(ref, ref.id))]


def _sweep(ref: JobRef, job_id: str) -> str:
    """What --sweep has given to the task of this id; '' where it names none."""
    tasks, task = ref.record.sweep if ref.record is not None else (), job_id.partition("_")[2]
    return tasks[int(task)] if task.isdecimal() and int(task) < len(tasks) else ""


def mine(scheduler: Scheduler) -> list[JobView]:
    """This user's jobs that dtk submit has made, as far as the scheduler knows them. Raises SubmitError."""
    said = ask(scheduler.queue_argv())
    if said.returncode != 0:
        raise SubmitError(f"the jobs cannot be listed: {failure(said, scheduler)}")
    found = []
    for state in scheduler.read_queue(said.stdout):
        if (folder := submitted_in(state)) is not None:
            found += views_of(of_states(state.id.partition("_")[0], folder, (state,)))
    return found


def _run(ref: JobRef, folder: Path, state: JobState | None = None) -> RunView | None:
    """The run as its directory tells it; None if nothing of this job has run there."""
    view = read_run(folder)
    since = ref.since if ref.id else 0.0
    mine = view.started is not None and view.started >= since and not ref.later
    return as_of(state, view) if mine else None


def _table(views: list[JobView], as_json: bool) -> None:
    if as_json:
        print(json_text([values(view) for view in views]))
    elif views:
        swept = any(view.sweep for view in views)
        rows = [(*_row(view), *((_metric(view), view.sweep) if swept else ()), _reason(view)) for view in views]
        print(plain((*_COLUMNS, *(("metric", "swept") if swept else ()), "why"), rows), end="")
    else:
        print("no job of dtk submit is in the queue; dtk runs lists the runs in ./runs", file=sys.stderr)


def values(view: JobView) -> dict[str, Any]:
    """A job as plain values, for programs; times in seconds, `submitted` as Unix time."""
    state = dict.fromkeys(JobState.__dataclass_fields__) if view.state is None else asdict(view.state)
    return state | {
        "id": view.id or None,
        "folder": str(view.folder),
        "log": view.log,
        "sweep": view.sweep,
        "step": view.step,
        "rate": view.rate,
        "left": view.left,
        "steps_left": view.steps_left,
        "run": run_json(view.run) if view.run is not None else None,
    }


def words(view: JobView) -> list[str]:
    """Lines about one job."""
    lines = [_job_line(view)]
    if view.run is not None:
        lines += ["run " + header(view.run)[0], header(view.run)[1]]
    if view.step is not None:
        pace = f", {number(view.rate)} steps/s" if view.rate is not None else ""
        lines.append(f"step {view.step}{pace}")
    if view.left is not None:
        fit = f", enough for about {view.steps_left} more steps at this rate" if view.steps_left is not None else ""
        eta = view.run.eta if view.run is not None else None
        short = ", too few to end" if fit and eta is not None and eta > view.left else ""
        lines.append(f"{duration(view.left)} left of its time{fit}{short}")
    if view.sweep:
        lines.append(f"swept: {view.sweep}")
    lines.append(f"run directory: {view.folder}" + (f", now of job {view.later}" if view.later else ""))
    return [*lines, f"log: {view.log}"] if view.log else lines


def _job_line(view: JobView) -> str:
    state = view.state
    if state is None:
        if not view.id:
            return "no job: this run was started without dtk submit"
        what = "nothing of it has run" if view.run is None else "its run directory says"
        return f"job {view.id}: the scheduler does not tell of it (any more); {what}"
    place = f" on {state.hosts}" if state.hosts else _asked(state)
    time = f" {'after' if state.over else 'for'} {duration(state.ran)}" if state.ran else ""
    time += f" of {duration(state.limit)}" if time and state.limit else ""
    again = f", {state.restarts} restart{'s' * (state.restarts > 1)}" if state.restarts else ""
    return f"job {state.id}: {_state(state)}{time}{place}{again}{_why(state)}"


def _asked(state: JobState) -> str:
    """The nodes that it waits for; '' for one."""
    least, most = state.nodes or 1, state.most or state.nodes or 1
    return f", {least} to {most} nodes" if most > least else f", {least} nodes" if least > 1 else ""


def _state(state: JobState) -> str:
    code, _, signal = state.exit_code.partition(":")
    if not state.over or state.state == "completed":
        return state.state
    ended = f"signal {signal}" if signal not in ("", "0") else f"exit code {code}" if code not in ("", "0") else ""
    return f"{state.state} ({ended})" if ended else state.state


def _why(state: JobState) -> str:
    if state.reason in ("", "NonZeroExitCode"):
        return ""
    turn = state.state == "pending" and state.reason in ("Priority", "Resources") and state.start
    start = f"; SLURM expects to start it at {state.start}" if turn else ""
    return f"; {state.reason}" + (f": {state.why}" if state.why else "") + start


def _metric(view: JobView) -> str:
    """The last value that was logged."""
    metric = view.run.metric if view.run is not None and view.run.logging else None
    return f"{metric[0]} {number(metric[1])}" if metric is not None else "-"


def _row(view: JobView) -> tuple[str, ...]:
    state, run = view.state, view.run
    return (
        view.id or "-",
        run_of(view.folder),
        _state(state) if state else state_of(run) if run else "-",
        "-" if state is None else state.hosts or str(state.nodes or "-"),
        "-" if state is None or state.ran is None else duration(state.ran),
        "-" if view.left is None else duration(view.left),
        "-" if view.step is None else str(view.step),
        number(view.rate),
    )


def _reason(view: JobView) -> str:
    """Why it waits, or has ended so, by the scheduler's word or else by the run directory."""
    said = view.state.reason if view.state is not None and view.state.reason != "NonZeroExitCode" else ""
    return printable(said or (view.run.why if view.run is not None else ""))
