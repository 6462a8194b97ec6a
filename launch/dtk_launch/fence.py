"""`start.json` in the run directory: which start of a SLURM job has it, so that an earlier one that still runs ends.

SLURM starts a job again when it has lost sight of one of its nodes. The node may be well, and its ranks with it: two
starts of one run would then write the same files.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path

from dtk_launch import wholefile
from dtk_launch.errors import PlanError

_FILE = "start.json"
_LOOK_EVERY = 1.0  # seconds


class Fence:
    """Of one launch. Outside a job there is none: `put` does nothing, and nobody overtakes."""

    def __init__(self, run_dir: Path, environ: Mapping[str, str]) -> None:
        self._path = run_dir / _FILE
        job, restart = environ.get("SLURM_JOB_ID", ""), environ.get("SLURM_RESTART_COUNT") or "0"
        self._job = f"{job}@{environ.get('SLURM_CLUSTER_NAME', '')}" if job.isdecimal() and restart.isdecimal() else ""
        self._restart = int(restart) if self._job else 0
        self._next_look = 0.0

    def put(self) -> bool:
        """Note this start. Whether an earlier one of the same job has been here, which may still run.

        Every node of the launch does it: each may be the first. A failed write never ends the run.

        Raises:
            PlanError: a later one has been here.
        """
        if not self._job:
            return False
        found = self._read()
        if found is not None and found > self._restart:
            raise PlanError(
                f"SLURM has started this job again since (restart {found}) in {self._path.parent}, and this start of "
                "it does not count any more; there is nothing to do"
            )
        if found != self._restart:
            values = {"job": self._job, "restart": self._restart, "host": socket.gethostname(), "time": time.time()}
            with contextlib.suppress(OSError):
                wholefile.put(self._path, json.dumps(values) + "\n", self._path.with_suffix(f".{os.getpid()}.tmp"))
        return found is not None and found < self._restart

    def overtaken(self) -> bool:
        """Whether a later start of this job has the run directory by now. Looks once a second."""
        if not self._job or time.monotonic() < self._next_look:
            return False
        self._next_look = time.monotonic() + _LOOK_EVERY
        found = self._read()
        return found is not None and found > self._restart

    def _read(self) -> int | None:
        """The restart of this job that was noted last."""
        try:
            values = json.loads(self._path.read_text(encoding="utf-8"))
            return int(values["restart"]) if values["job"] == self._job else None
        except (OSError, ValueError, TypeError, KeyError):
            return None
