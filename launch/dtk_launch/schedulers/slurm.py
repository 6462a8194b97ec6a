"""SLURM: renders slurm/job.sbatch.j2, or a site's own. Inside the job `dtk launch` takes over: allocation.py."""

from __future__ import annotations

import shlex
from pathlib import Path

from dtk_launch.errors import PlanError, SubmitError
from dtk_launch.resources import find_data
from dtk_launch.schedulers.base import JobPlan
from dtk_launch.schedulers.directives import directives
from dtk_launch.schedulers.site import SINFO, parse_sinfo, refusals, waits
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
        "srun": srun_words(plan),
        "launch": plan.launch,
        "launcher": "torchrun" if plan.plain is not None else "dtk",
    }


def _read(template: Path) -> str:
    try:
        return template.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PlanError(f"--template={template} cannot be read: {error}; pass a readable text file") from None
