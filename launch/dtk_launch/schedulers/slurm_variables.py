"""The variables that sbatch reads as options: for it they win over the lines of a script. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from dtk_launch.schedulers.base import JobPlan

_NAMES = {
    "array": ("SBATCH_ARRAY_INX",),
    "mem": ("SBATCH_MEM_PER_NODE", "SBATCH_MEM_PER_CPU", "SBATCH_MEM_PER_GPU"),
    "time": ("SBATCH_TIMELIMIT",),
    "requeue": ("SBATCH_NO_REQUEUE",),
    "no-requeue": ("SBATCH_REQUEUE",),
}
_NEVER = {"SBATCH_WAIT"}  # the job's id is wanted at once
_CHECKED = ("partition", "qos", "time", "mem", "gpus-per-node", "constraint")


def of_option(option: str) -> tuple[str, ...]:
    """The variables that sbatch would take for this option."""
    return _NAMES.get(option, (f"SBATCH_{option.upper().replace('-', '_')}",))


def submit_environ(options: Mapping[str, str | None], environ: Mapping[str, str]) -> dict[str, str]:
    """The variables without those that would override the options of the script."""
    hidden = _NEVER.union(*map(of_option, options))
    return {name: value for name, value in environ.items() if name not in hidden}


def with_variables(plan: JobPlan, environ: Mapping[str, str]) -> JobPlan:
    """The job with what sbatch will take from its variables, as far as dtk checks it."""
    asked = dict(plan.asked)
    found = [(key, environ.get(of_option(key)[0])) for key in _CHECKED if key not in asked]
    return replace(plan, asked=(*plan.asked, *((key, value) for key, value in found if value)))
