"""SLURM: renders slurm/job.sbatch.j2. What happens inside the job is `dtk launch`'s, see allocation.py."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from pathlib import Path

from dtk_launch.errors import PlanError, SubmitError
from dtk_launch.resources import find_data
from dtk_launch.schedulers.base import JobPlan


class Slurm:
    """The scheduler of sbatch and srun."""

    program = "sbatch"

    def render(self, plan: JobPlan) -> str:
        """The batch script: directives, and one srun line that starts one dtk on each node."""
        from jinja2 import Environment, StrictUndefined

        environment = Environment(undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True)
        environment.filters |= {"quote": shlex.quote, "words": shlex.join}
        template = environment.from_string(find_data("slurm/job.sbatch.j2").read_text(encoding="utf-8"))
        return template.render(
            directives=_checked(_directives(plan)), nodes=plan.nodes, srun=_srun(plan), launch=plan.launch
        )

    def submit_argv(self, script: Path) -> tuple[str, ...]:
        """`--parsable`: the job id and nothing around it."""
        return ("sbatch", "--parsable", str(script))

    def parse_job_id(self, stdout: str) -> str:
        """`123` or `123;cluster`, in the last line: a site's submit filter may print before it."""
        job_id = stdout.strip().splitlines()[-1].partition(";")[0] if stdout.strip() else ""
        if not job_id.isdecimal():
            raise SubmitError(f"sbatch printed no job id but {stdout.strip()!r}; see squeue before submitting again")
        return job_id

    def log_path(self, plan: JobPlan, job_id: str) -> Path:
        """One log for the job, requeues appended."""
        return plan.output_dir / f"slurm-{job_id}.out"


def _directives(plan: JobPlan) -> list[tuple[str, str | None]]:
    log = str(plan.output_dir).replace("%", "%%")  # sbatch expands %-patterns in file names
    asked: list[tuple[str, str | None]] = [
        ("job-name", plan.name),
        ("nodes", str(plan.nodes)),
        ("ntasks-per-node", "1"),
        ("time", plan.time),
        ("partition", plan.partition),
        ("account", plan.account),
        ("gpus-per-node", plan.gpus_per_node),
        ("cpus-per-task", str(plan.cpus_per_task or "")),
        ("mem", plan.mem),
        ("chdir", str(plan.workdir)),
        ("output", f"{log}/slurm-%j.out"),
        ("open-mode", "append"),  # a requeue would truncate the log
        ("requeue", None),
    ]
    return [(key, value) for key, value in asked if value != ""] + list(plan.extra)


def _checked(directives: Iterable[tuple[str, str | None]]) -> list[tuple[str, str | None]]:
    """No value may end its line: the rest would become shell."""
    checked = list(directives)
    for key, value in checked:
        if not f"{key}{value or ''}".isprintable():
            raise PlanError(f"--{key}={value!r} has a line break or control character; #SBATCH lines cannot hold one")
    return checked


def _srun(plan: JobPlan) -> tuple[str, ...]:
    # --kill-on-bad-exit: torchrun on the other nodes does not notice a failed one (pytorch#146371).
    # --cpus-per-task: SLURM 22.05 to 23.11 do not hand it to srun, and 24 refuses one that differs.
    cpus = (f"--cpus-per-task={plan.cpus_per_task}",) if plan.cpus_per_task else ()
    return ("srun", f"--nodes={plan.nodes}", "--ntasks-per-node=1", "--kill-on-bad-exit=1", *cpus)
