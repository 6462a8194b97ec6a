"""The seam of a scheduler: a JobPlan in, text out. A new scheduler is one file with these methods."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


class PerTask(str):
    """A word that the number of the array's task is appended to."""

    __slots__ = ()


@dataclass(frozen=True)
class Container:
    """What the ranks run in. `mounts` are SOURCE:TARGET; `runtime` is one of options.RUNTIMES."""

    image: str
    runtime: str
    mounts: tuple[str, ...]


@dataclass(frozen=True)
class JobPlan:
    """A job to submit. `launch` is the command of each node, plain torchrun's where `plain` is set.

    `asked`: options of the scheduler, in the words of sbatch (a new scheduler translates them), None for a switch.
    `setup`: lines of bash before the ranks start. `env`: variables that the script sets itself (`plain`).
    `batch`: the command that starts the launch from the batch script and requeues it, () for none.
    """

    launch: tuple[str, ...]
    nodes: int
    name: str
    run_dir: Path
    output_dir: Path
    workdir: Path
    asked: tuple[tuple[str, str | None], ...] = ()
    cpus_per_task: int = 0
    array: str = ""
    setup: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    container: Container | None = None
    plain: Torchrun | None = None
    template: Path | None = None
    requeue: bool = True
    batch: tuple[str, ...] = ()


@dataclass(frozen=True)
class Torchrun:
    """A launch by torchrun itself: its program, and --nproc-per-node and --max-restarts for it."""

    program: tuple[str, ...]
    nproc: str
    max_restarts: int


class Scheduler(Protocol):
    """Renders and reads; it starts nothing and writes nothing."""

    program: str
    """The program that submits, as found on PATH."""

    def render(self, plan: JobPlan) -> str:
        """The whole job script. Raises PlanError for what the scheduler cannot express."""

    def site_argv(self) -> tuple[str, ...]:
        """The command that tells what the cluster has."""

    def refusals(self, plan: JobPlan, site: str) -> list[str]:
        """Why the job could never start, from what that command printed; empty if nothing speaks against it."""

    def waits(self, plan: JobPlan, site: str) -> str:
        """What keeps it waiting for longer than its turn; '' if nothing is known to."""

    def test_argv(self) -> tuple[str, ...]:
        """The command that takes a script on stdin and says whether it would be accepted."""

    def read_test(self, returncode: int, words: str) -> tuple[str, str]:
        """(refusal, when it could start) in what that command said, each '' where it says nothing."""

    def explained(self, words: str) -> str:
        """The scheduler's words of a refusal, and what they mean."""

    def submit_argv(self, script: Path) -> tuple[str, ...]:
        """The command that submits the script."""

    def parse_job_id(self, stdout: str) -> str:
        """The job id in what that command printed."""

    def log_path(self, plan: JobPlan, job_id: str) -> Path:
        """Where the job's own output goes."""
