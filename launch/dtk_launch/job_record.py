"""`job.json` in the run directory: the job that `dtk submit` made of it (docs/wire.md)."""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from dtk_launch import wholefile

_FORMAT = 1
_TEXTS = ("job_id", "cluster", "log", "script", "array", "benchmark")


@dataclass(frozen=True)
class JobRecord:
    """The last job of a run directory. `submitted` as Unix time; `cluster` and `array` '' where there is none.

    `sweep`: the arguments of each task of the array that --sweep has made. `benchmark`: its name, '' for a run.
    """

    job_id: str
    cluster: str
    submitted: float
    log: str
    script: str
    array: str
    sweep: tuple[str, ...] = ()
    scheduler: str = "slurm"
    benchmark: str = ""

    def later_than(self, job_id: str) -> bool:
        """Whether this is of a later job than that one: schedulers count upwards."""
        both = self.job_id.isdecimal() and job_id.isdecimal()
        return int(self.job_id) > int(job_id) if both else self.job_id != job_id

    def of_job(self, job_id: str, submitted: float) -> JobRecord:
        """The record of another job of the same script. `submitted` as Unix time."""
        log = Path(self.log)
        name = log.name.replace(f"-{self.job_id}", f"-{job_id}")
        return replace(self, job_id=job_id, submitted=submitted, log=str(log.with_name(name)) if name else "")

    def write(self, run_dir: Path) -> None:
        """Replace the record. A failed write is left: the job is in the queue, and its id is printed."""
        text = json.dumps({"format": _FORMAT, **asdict(self)}, indent=2) + "\n"
        with contextlib.suppress(OSError):
            wholefile.put(run_dir / "job.json", text, run_dir / "job.tmp")

    @classmethod
    def read(cls, run_dir: Path) -> JobRecord | None:
        """The record; None where there is none that can be read."""
        try:
            values = json.loads((run_dir / "job.json").read_text(encoding="utf-8"))
            words = {name: str(values.get(name, "")) for name in _TEXTS}
            sweep = tuple(str(task) for task in values.get("sweep", ()))
            return cls(submitted=float(values.get("submitted", 0)), sweep=sweep, **words) if words["job_id"] else None
        except (OSError, ValueError, TypeError, AttributeError):
            return None
