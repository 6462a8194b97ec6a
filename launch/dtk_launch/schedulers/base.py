"""The seam of a scheduler: a JobPlan in, text out. A new scheduler is one file with these methods."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from dtk_launch.asking import Answer


class PerTask(str):
    """A word that the number of the array's task is appended to."""

    __slots__ = ()


class TaskArguments(str):
    """A word that stands for the arguments of the array's task, which lines of `setup` have put in "$@"."""

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
    fewest: int = 0
    """Nodes that it needs to begin and to go on, where it can do with less than `nodes`; else 0."""
    alone: bool = False
    """`launch` runs once, on the first node, and starts what is to run on the others."""

    @property
    def elastic(self) -> bool:
        """Whether the job goes on when it has lost a node."""
        return 0 < self.fewest < self.nodes

    @property
    def needed(self) -> int:
        """Nodes that it cannot do without."""
        return self.fewest if self.elastic else self.nodes


@dataclass(frozen=True)
class Torchrun:
    """A launch by torchrun itself: its program, and --nproc-per-node and --max-restarts for it."""

    program: tuple[str, ...]
    nproc: str
    max_restarts: int


@dataclass(frozen=True)
class JobState:
    """What the scheduler says of a job now; '' and None: nothing. Times in seconds, `submitted` as Unix time.

    `state` in lower case, as the scheduler calls it; `over`: it has ended and does not come back. `reason` is the
    scheduler's word for why it waits or ended so, `why` what that means. `ran`: since its start. `start`: when it
    started, or could, by the scheduler's clock. `submitted`: when it was put in the queue, or back into it.
    """

    id: str
    state: str
    over: bool
    reason: str
    why: str
    nodes: int | None
    hosts: str
    ran: float | None
    limit: float | None
    start: str
    submitted: float | None
    restarts: int | None
    exit_code: str
    user: str
    script: Path | None
    log: str
    most: int | None = None
    """Nodes that it would take, where it can do with `nodes`."""

    @property
    def began(self) -> float | None:
        """When it started (Unix time); None where it has not, or that cannot be read."""
        if self.ran is None:
            return None
        with contextlib.suppress(ValueError, OverflowError):
            return time.mktime(time.strptime(self.start, "%Y-%m-%d %H:%M:%S"))
        return None


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

    def container_argv(self, plan: JobPlan) -> tuple[str, ...]:
        """The command that tells whether the job's container can be started, () where nothing has to be asked."""

    def container_note(self, plan: JobPlan, said: str) -> str:
        """What speaks against it, in what that command printed; '' for nothing."""

    def test_argv(self) -> tuple[str, ...]:
        """The command that takes a script on stdin and says whether it would be accepted."""

    def read_test(self, returncode: int, words: str) -> tuple[str, str]:
        """(refusal, when it could start) in what that command said, each '' where it says nothing."""

    def explained(self, words: str) -> str:
        """The scheduler's words of a refusal, and what they mean."""

    def submit_environ(self, plan: JobPlan, environ: Mapping[str, str]) -> dict[str, str]:
        """The variables for the command that submits: without those that would change what the script says."""

    def with_variables(self, plan: JobPlan, environ: Mapping[str, str]) -> JobPlan:
        """The job with what the scheduler takes from variables, for `refusals` and `waits`."""

    def submit_argv(self, script: Path) -> tuple[str, ...]:
        """The command that submits the script."""

    def parse_job_id(self, stdout: str) -> str:
        """The job id in what that command printed."""

    def log_path(self, plan: JobPlan, job_id: str) -> Path:
        """Where the job's own output goes."""

    def parse_cluster(self, stdout: str) -> str:
        """The cluster in what that command printed, '' for this host's own."""

    def job_id_in(self, text: str) -> str:
        """The job id that a person has typed, '' if it is none: `123`, of an array's task `123_4`."""

    def job_argv(self, job_id: str, cluster: str) -> tuple[str, ...]:
        """The command that tells all about a job, an array's tasks each."""

    def read_jobs(self, stdout: str) -> list[JobState]:
        """The jobs in what that command printed."""

    def not_there(self, words: str) -> bool:
        """Whether a failure of that command means that there is no such job, or that it is forgotten."""

    def queue_argv(self) -> tuple[str, ...]:
        """The command that lists this user's jobs."""

    def read_queue(self, stdout: str) -> list[JobState]:
        """The jobs in what that command printed, with what it knows of each."""

    def cancel_argv(self, job_id: str, cluster: str) -> tuple[str, ...]:
        """The command that ends a job, or takes it out of the queue."""

    def inside_argv(self, job_id: str, cluster: str, host: str, terminal: bool) -> tuple[str, ...]:
        """The words before a command that is to run beside a running job: on `host`, or its first node."""


def failure(said: Answer, scheduler: Scheduler) -> str:
    """Why a question was not answered, in the program's words and with what they mean."""
    return said.words if said.returncode is None else scheduler.explained(said.words)
