"""SLURM: renders slurm/job.sbatch.j2, or a site's own. Inside the job `dtk launch` takes over: allocation.py."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path

from dtk_launch.errors import PlanError, SubmitError
from dtk_launch.resources import find_data
from dtk_launch.schedulers.base import JobPlan, JobState
from dtk_launch.schedulers.directives import directives
from dtk_launch.schedulers.site import SINFO, parse_sinfo, refusals, waits
from dtk_launch.schedulers.slurm_jobs import SQUEUE, parse_jobs, parse_queue
from dtk_launch.schedulers.slurm_variables import submit_environ, with_variables
from dtk_launch.schedulers.slurm_words import explained, may_wait, start_of
from dtk_launch.schedulers.srun import meeting_lines, shell_words, srun_words


class Slurm:
    """The scheduler of sbatch and srun."""

    program = "sbatch"

    def render(self, plan: JobPlan) -> str:
        """The batch script: directives, and one srun line that starts one launcher on each node."""
        import jinja2

        environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, keep_trailing_newline=True)
        environment.filters |= {"quote": shlex.quote, "words": shell_words}
        source = plan.template or find_data("slurm/job.sbatch.j2")
        try:
            text = environment.from_string(_read(source)).render(variables(plan))
        except jinja2.TemplateSyntaxError as error:
            raise PlanError(f"--template={source}, line {error.lineno}: {error.message}; mend it") from None
        except jinja2.UndefinedError as error:
            known = ", ".join(variables(plan))
            raise PlanError(f"--template={source}: {error.message}; the variables are {known}") from None
        except jinja2.TemplateError as error:
            raise PlanError(f"--template={source}: {error}; mend it") from None
        if not text.startswith("#!"):
            raise PlanError(f"--template={source}: a batch script begins with #!, this one with {text[:20]!r}; mend it")
        return text

    def site_argv(self) -> tuple[str, ...]:
        """A line for each group of equal nodes of a partition."""
        return SINFO

    def refusals(self, plan: JobPlan, site: str) -> list[str]:
        """By the numbers of site.py."""
        return refusals(plan, parse_sinfo(site))

    def waits(self, plan: JobPlan, site: str) -> str:
        """Nodes that are down or drained."""
        return waits(plan, parse_sinfo(site))

    def container_argv(self, plan: JobPlan) -> tuple[str, ...]:
        """pyxis, a plugin, adds options to srun; of apptainer only the nodes can tell."""
        return ("srun", "--help") if plan.container is not None and plan.container.runtime == "pyxis" else ()

    def container_note(self, plan: JobPlan, said: str) -> str:
        """Without pyxis srun ends with its usage. Only the nodes need it, and may have it where this host has not."""
        if plan.container is None or "--job-name" not in said or "--container-image" in said:
            return ""
        return (
            f"--container-image={plan.container.image} is started by pyxis, but srun has no --container-image here; "
            "unless the nodes have pyxis, pass a .sif file, or --container-runtime apptainer"
        )

    def test_argv(self) -> tuple[str, ...]:
        """Submits nothing."""
        return ("sbatch", "--test-only")

    def read_test(self, returncode: int, words: str) -> tuple[str, str]:
        """A refusal for now alone is none, as the job would wait, and neither is a failure without a word."""
        if returncode == 0:
            return "", start_of(words)
        return ("" if may_wait(words) or not words.strip() else explained(words)), ""

    def explained(self, words: str) -> str:
        """By the table of slurm_words.py."""
        return explained(words)

    def submit_environ(self, plan: JobPlan, environ: Mapping[str, str]) -> dict[str, str]:
        """By slurm_variables.py: what the script says wins."""
        return submit_environ(dict(directives(plan)), environ)

    def with_variables(self, plan: JobPlan, environ: Mapping[str, str]) -> JobPlan:
        """SBATCH_PARTITION and others."""
        return with_variables(plan, environ)

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
        """One log for the job, requeues appended; of an array the pattern of its tasks' logs."""
        return plan.output_dir / (f"slurm-{job_id}_*.out" if plan.array else f"slurm-{job_id}.out")

    def parse_cluster(self, stdout: str) -> str:
        """What follows the `;`."""
        return stdout.strip().splitlines()[-1].partition(";")[2] if stdout.strip() else ""

    def job_id_in(self, text: str) -> str:
        """Digits, and for a task of an array its number behind a `_`."""
        return text if re.fullmatch(r"[0-9]+(_[0-9]+)?", text) else ""

    def job_argv(self, job_id: str, cluster: str) -> tuple[str, ...]:
        """Not with --oneliner: names and paths may hold blanks."""
        return ("scontrol", *_of(cluster), "show", "job", job_id)

    def read_jobs(self, stdout: str) -> list[JobState]:
        """By slurm_jobs.py."""
        return parse_jobs(stdout)

    def not_there(self, words: str) -> bool:
        """Ended jobs are forgotten after MinJobAge, five minutes unless the site says otherwise."""
        return "Invalid job id" in words or re.search(r"\bJob \S+ not found", words) is not None  # a task of an array

    def queue_argv(self) -> tuple[str, ...]:
        """Also jobs that ended in the last minutes."""
        return SQUEUE

    def read_queue(self, stdout: str) -> list[JobState]:
        """By slurm_jobs.py."""
        return parse_queue(stdout)

    def cancel_argv(self, job_id: str, cluster: str) -> tuple[str, ...]:
        """All tasks of an array, or the one that is named."""
        return ("scancel", *_of(cluster), job_id)

    def inside_argv(self, job_id: str, cluster: str, host: str, terminal: bool) -> tuple[str, ...]:
        """`--overlap`: the ranks hold all that the job has, and another step would wait for them."""
        where = (f"--nodelist={host}",) if host else ()
        one = ("--overlap", "--nodes=1", "--ntasks=1", "--immediate=30", *where, *(("--pty",) if terminal else ()))
        return ("srun", *_of(cluster), f"--jobid={job_id}", *one)


def _of(cluster: str) -> tuple[str, ...]:
    return (f"--clusters={cluster}",) if cluster else ()


def variables(plan: JobPlan) -> dict[str, object]:
    """What a template can use (slurm/README.md)."""
    return {
        "directives": directives(plan),
        "nodes": plan.nodes,
        "name": plan.name,
        "run_dir": str(plan.run_dir),
        "workdir": str(plan.workdir),
        "setup": [*plan.setup, *meeting_lines(plan)],
        "batch": plan.batch,
        "srun": () if plan.alone else srun_words(plan),
        "launch": plan.launch,
        "launcher": "torchrun" if plan.plain is not None else "dtk",
        "fewest": plan.needed,
    }


def _read(template: Path) -> str:
    try:
        return template.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PlanError(f"--template={template} cannot be read: {error}; pass a readable text file") from None
