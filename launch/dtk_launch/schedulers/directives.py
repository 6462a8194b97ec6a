"""The #SBATCH lines of a job. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from dtk_launch.errors import PlanError
from dtk_launch.schedulers.base import JobPlan

Directive = tuple[str, str | None]
"""An option of sbatch and its value; None for a switch."""


def directives(plan: JobPlan) -> list[Directive]:
    """All of them, in a fixed order. Raises PlanError for a value that would end its line."""
    log = str(plan.output_dir).replace("%", "%%")  # sbatch expands %-patterns in file names
    found: list[Directive] = [
        ("job-name", plan.name),
        ("nodes", f"{plan.fewest}-{plan.nodes}" if plan.elastic else str(plan.nodes)),
        # with tasks for each node SLURM gives the fewest nodes, and without as many as there are
        *([] if plan.elastic else [("ntasks-per-node", "1")]),
        *plan.asked,
        *([("cpus-per-task", str(plan.cpus_per_task))] if plan.cpus_per_task else []),
        *([("array", plan.array)] if plan.array else []),
        ("chdir", str(plan.workdir)),
        ("output", f"{log}/slurm-{'%A_%a' if plan.array else '%j'}.out"),
        ("open-mode", "append"),  # a requeue would truncate the log
        *([("no-kill", None)] if plan.elastic else []),
        ("requeue" if plan.requeue else "no-requeue", None),
    ]
    return _checked(found)


def _checked(found: Iterable[Directive]) -> list[Directive]:
    """No value may end its line: the rest would become shell."""
    checked = list(found)
    for key, value in checked:
        if not f"{key}{value or ''}".isprintable():
            raise PlanError(f"--{key}={value!r} has a line break or control character; #SBATCH lines cannot hold one")
    return checked
