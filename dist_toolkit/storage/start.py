"""Which start of a scheduler's job a program is part of. Of two of one job, the scheduler has given up the earlier."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class JobStart:
    """A start of a SLURM job. `job` names it on its cluster; `restart` counts from 0, one more for each requeue."""

    job: str
    restart: int

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> JobStart | None:
        """The start that these variables are of; None outside a job. SLURM leaves the count out at the first start."""
        job, restart = environ.get("SLURM_JOB_ID", ""), environ.get("SLURM_RESTART_COUNT") or "0"
        if not re.fullmatch(r"[0-9]+", job) or not re.fullmatch(r"[0-9]{1,9}", restart):
            return None
        cluster = re.sub(r"\s", "", environ.get("SLURM_CLUSTER_NAME", ""))
        return cls(f"{job}@{cluster}" if cluster else job, int(restart))

    @classmethod
    def read(cls, text: str) -> JobStart | None:
        """The start whose line is among these."""
        found = re.search(r"^start ([0-9]{1,9}) of SLURM job (\S+)$", text, re.MULTILINE)
        return cls(found[2], int(found[1])) if found else None

    @property
    def line(self) -> str:
        """As `read` finds it."""
        return f"start {self.restart} of SLURM job {self.job}"

    def succeeds(self, other: JobStart | None) -> bool:
        """Whether this is a later start of the same job: then SLURM takes the other for dead."""
        return other is not None and self.job == other.job and self.restart > other.restart
