"""The seam of a scheduler: a JobPlan in, text out. A new scheduler is one file with these three functions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class JobPlan:
    """A job to submit. `launch` is the command of each node; the rest is asked of the scheduler (not if '' or 0)."""

    launch: tuple[str, ...]
    nodes: int
    name: str
    run_dir: Path
    output_dir: Path
    workdir: Path
    time: str = ""
    partition: str = ""
    account: str = ""
    gpus_per_node: str = ""
    cpus_per_task: int = 0
    mem: str = ""
    extra: tuple[tuple[str, str | None], ...] = ()


class Scheduler(Protocol):
    """Renders and reads; it starts nothing and writes nothing."""

    program: str
    """The program that submits, as found on PATH."""

    def render(self, plan: JobPlan) -> str:
        """The whole job script. Raises PlanError for what the scheduler cannot express."""

    def submit_argv(self, script: Path) -> tuple[str, ...]:
        """The command that submits the script."""

    def parse_job_id(self, stdout: str) -> str:
        """The job id in what that command printed."""

    def log_path(self, plan: JobPlan, job_id: str) -> Path:
        """Where the job's own output goes."""
