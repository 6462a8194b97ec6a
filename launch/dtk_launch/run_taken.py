"""Whether a job still has the run directory that another one is to be submitted for."""

from __future__ import annotations

from dtk_launch.errors import PlanError
from dtk_launch.job_record import JobRecord
from dtk_launch.jobref import JobRef, now
from dtk_launch.schedulers.base import JobPlan, JobState, Scheduler


def check_free(job: JobPlan, scheduler: Scheduler, another: str = "--name") -> None:
    """Ask the scheduler about the last job of the run directory. Raises PlanError while that waits or runs.

    `another`: the option that leads to another directory. A job that begins after another one (--dependency) may have
    its run. Without an answer the run counts as free.
    """
    record = JobRecord.read(job.run_dir)
    if record is None or "dependency" in dict(job.asked):
        return
    states = now(JobRef(record.job_id, job.run_dir.resolve(), record), scheduler).states
    alive = [state for state in states if not state.over]
    if alive:
        number = record.job_id
        end = f"dtk cancel {number}" if _lives_on(alive) else "wait until that is done"
        raise PlanError(
            f"job {number} still has the run {job.run_dir} ({_words(alive)}); {end}, pass another {another}, or "
            f"--dependency afterany:{number} to go on behind it"
        )


def _lives_on(alive: list[JobState]) -> bool:
    """Whether one of them is not about to end anyway."""
    return any(state.state != "completing" for state in alive)


def _words(alive: list[JobState]) -> str:
    first = next((state for state in alive if state.state == "running"), alive[0])
    place = f" on {first.hosts}" if first.hosts else ""
    task = f"task {first.id} " if "_" in first.id else ""
    more = f", and {len(alive) - 1} more" if len(alive) > 1 else ""
    return f"{task}{first.state}{place}{more}"
