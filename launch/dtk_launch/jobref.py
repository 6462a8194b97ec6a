"""Which job a command means, a job id or a run, and what the scheduler says of it."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from dtk_launch.asking import Answer, ask
from dtk_launch.errors import DtkError, PlanError, SubmitError
from dtk_launch.job_record import JobRecord
from dtk_launch.runref import find_run, is_run
from dtk_launch.schedulers.base import JobState, Scheduler, failure

_TASK = re.compile(r"task-(\d+)")
_SKEW = 5.0  # seconds by which the clocks of two hosts may differ


class JobNotFound(DtkError):
    """There is no such job."""


@dataclass(frozen=True)
class JobRef:
    """A job and its run directory, of an array the folder that holds one for each task.

    `id` '': the run is no job's. `states`: what the scheduler says of it, one for each task; empty: it was not asked,
    could not be (`silent` says why), or has forgotten the job. `later`: the job that has the folder now, '' if it is
    still this one.
    """

    id: str
    folder: Path
    record: JobRecord | None = None
    states: tuple[JobState, ...] = ()
    silent: str = ""
    later: str = ""

    @property
    def cluster(self) -> str:
        """'' for this host's own."""
        return self.record.cluster if self.record is not None else ""

    @property
    def array(self) -> bool:
        """Whether it is a whole array."""
        return "_" not in self.id and (
            any("_" in state.id for state in self.states) or bool(self.record and self.record.array)
        )

    @property
    def over(self) -> bool:
        """Whether nothing more comes of it, as far as the scheduler was asked."""
        return all(state.over for state in self.states)

    @property
    def since(self) -> float:
        """When it was submitted (Unix time), with room for clocks that differ; an entry before it is another's."""
        times = [state.submitted for state in self.states if state.submitted is not None]
        first = self.record.submitted if self.record is not None else min(times, default=0.0)
        return first - _SKEW

    def run_dir(self, state: JobState) -> Path:
        """The run directory of one of its states."""
        return task_folder(self.folder, state.id) if self.array else self.folder


def find_job(text: str, cwd: Path, scheduler: Scheduler) -> JobRef:
    """The job that `text` means. Asks the scheduler if it is a job id. Raises JobNotFound, RunNotFound, PlanError."""
    number = scheduler.job_id_in(text)
    named = cwd / "runs" / text
    record = JobRecord.read(named)
    if number and record is not None and record.job_id != number:
        raise PlanError(
            f"{text} can be job {text}, or the run {named} of job {record.job_id}; pass {named} for the run"
        )
    if number and record is None and not is_run(named):
        return _of_id(number, cwd, scheduler)
    asked = cwd / Path(text).expanduser()
    for folder in (named, asked):
        if (found := _of_folder(folder)) is not None:
            return found
    return JobRef("", find_run(text, cwd))


def now(ref: JobRef, scheduler: Scheduler) -> JobRef:
    """The same job with what the scheduler says of it now."""
    if not ref.id:
        return ref
    said = ask(scheduler.job_argv(ref.id, ref.cluster))
    if said.returncode != 0:
        silent = "" if scheduler.not_there(said.words) else failure(said, scheduler)
        return replace(ref, states=(), silent=silent)
    states = tuple(state for state in scheduler.read_jobs(said.stdout) if submitted_in(state) == _base(ref))
    return replace(ref, states=states, silent="")


def of_states(number: str, folder: Path, states: tuple[JobState, ...]) -> JobRef:
    """A job of `folder` of which the scheduler tells. One that waits after `sbatch job.sbatch` is not in the record."""
    record, own = JobRecord.read(folder), number.partition("_")[0]
    later = record.job_id if record is not None and record.later_than(own) else ""
    record = record if record is not None and record.job_id == own else None
    return JobRef(number, task_folder(folder, number), record, states, later=later)


def submitted_in(state: JobState) -> Path | None:
    """The folder that `dtk submit` has made this job of; None if it is not dtk's."""
    if state.script is None or state.script.name != "job.sbatch" or JobRecord.read(state.script.parent) is None:
        return None
    return state.script.parent.resolve()


def task_folder(folder: Path, job_id: str) -> Path:
    """The run directory of a task of an array, by its id; `folder` itself where that names no one task."""
    task = job_id.partition("_")[2]
    return folder / f"task-{task}" if task.isdecimal() else folder


def _base(ref: JobRef) -> Path:
    """The folder of the job's script."""
    return ref.folder.parent if _TASK.fullmatch(ref.folder.name) and "_" in ref.id else ref.folder


def _of_id(number: str, cwd: Path, scheduler: Scheduler) -> JobRef:
    said = ask(scheduler.job_argv(number, ""))
    if said.returncode != 0:
        return _forgotten(number, cwd, scheduler, said)
    states = tuple(scheduler.read_jobs(said.stdout))
    if not states:
        raise SubmitError(f"what the scheduler says of job {number} is not understood: {said.stdout.strip()[:200]!r}")
    folder = submitted_in(states[0])
    if folder is None:
        script = states[0].script or "given on stdin"
        raise PlanError(
            f"job {number} is not one that dtk submit has made (its script: {script}); for others use the scheduler's "
            "own commands, such as scontrol show job and scancel"
        )
    whole = number.partition("_")[0] == states[0].id.partition("_")[0]
    number = number if whole else states[0].id  # SLURM's own number of a task of an array
    return of_states(number, folder, states)


def _forgotten(number: str, cwd: Path, scheduler: Scheduler, said: Answer) -> JobRef:
    """A job that ended long ago, by what stands in ./runs."""
    base = number.partition("_")[0]
    silent = "" if scheduler.not_there(said.words) else failure(said, scheduler)
    for path in sorted((cwd / "runs").glob("*/job.json")):
        record = JobRecord.read(path.parent)
        if record is not None and record.job_id == base:
            return JobRef(number, task_folder(path.parent.resolve(), number), record, (), silent)
    if silent:
        raise SubmitError(f"job {number} cannot be asked for: {silent}")
    raise JobNotFound(
        f"no job {number}: the scheduler does not know it, or has forgotten it, as it does some minutes after its end, "
        f"and no run in {cwd / 'runs'} is of it. dtk status lists the jobs in the queue, dtk runs those of the past; "
        "a run's name or path can be passed in place of a job id"
    )


def _of_folder(folder: Path) -> JobRef | None:
    """The job of a run directory; None if none was made of it."""
    folder = folder.resolve()
    if (record := JobRecord.read(folder)) is not None:
        return JobRef(record.job_id, folder, record)
    match = _TASK.fullmatch(folder.name)
    if match and folder.is_dir() and (record := JobRecord.read(folder.parent)) is not None and record.array:
        return JobRef(f"{record.job_id}_{match[1]}", folder, record)
    return None
