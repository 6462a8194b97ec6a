"""What the nodes of a job have said of their end, for the batch script: srun alone does not always tell.

srun waits for ever for a node whose slurmstepd has died, and reports a lost node as a failure of a run that went on
without it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dtk_launch.allocation import expand
from dtk_launch.errors import PlanError
from dtk_launch.nodes import entries
from dtk_launch.requeue import PREEMPTED


@dataclass(frozen=True)
class Remains:
    """The nodes of this start of the job, by their names in SLURM's order, and the exit codes of those that ended."""

    hosts: tuple[str, ...]
    codes: Mapping[str, int]
    """Host -> the run's exit code, in the words of its dtk."""

    @property
    def silent(self) -> tuple[str, ...]:
        """Hosts that have not said that they ended."""
        return tuple(host for host in self.hosts if host not in self.codes)

    @property
    def code(self) -> int | None:
        """The exit code of the run by those that ended: a failure before a save, a save before 0; None by nobody."""
        codes = set(self.codes.values())
        failed = sorted(codes - {0, PREEMPTED})
        return failed[0] if failed else PREEMPTED if PREEMPTED in codes else 0 if codes else None


def first_has_ended(run_dir: Path) -> bool:
    """Whether the first node says that it has ended, in this start or an earlier one: one file, and not one a node."""
    try:
        return "exit_code" in json.loads((run_dir / "nodes" / "0.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        return False


def remains(run_dir: Path, environ: Mapping[str, str], since_ns: int) -> Remains:
    """What the run directory shows. `since_ns`: Unix time of the begin, by the clock of this host."""
    try:
        hosts = expand(environ.get("SLURM_JOB_NODELIST", ""))
    except PlanError:
        return Remains((), {})
    if len(hosts) == 1:  # this one: its launches have no name in common, but its clock
        found = {node: entry for node, entry in entries(run_dir).items() if entry.get("time_ns", 0) >= since_ns}
    else:
        found = entries(run_dir, f"{environ.get('SLURM_JOB_ID')}-{environ.get('SLURM_RESTART_COUNT') or 0}")
    codes = {
        hosts[int(node)]: entry["exit_code"]
        for node, entry in found.items()
        if node.isdecimal() and int(node) < len(hosts) and isinstance(entry.get("exit_code"), int)
    }
    return Remains(hosts, codes)
