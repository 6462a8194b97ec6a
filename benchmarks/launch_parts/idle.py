"""What the supervisor and torchrun use of a core while the ranks of a run are quiet, or print."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench_parts.processes import ProcessFailed
from bench_parts.watch import watching

from .commands import end, start
from .starts import threads_of
from .turns import Done

RANKS = 8
ROUNDS = 3
SECONDS = 15.0
SETTLE = 2.0
"""Seconds from the last rank's first line to the first look."""
KINDS = {"quiet": "600", "a line a second from each rank": "1"}
SCRIPT = """import os, sys, time
with open("up" + os.environ["RANK"], "w") as file:
    file.write(os.environ.get("OMP_NUM_THREADS", ""))
while True:
    time.sleep(float(sys.argv[1]))
    print("a line", flush=True)
"""


def cpu_seconds(pid: int) -> float:
    """What a process has used, its children not counted."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(folder: Path, rounds: int, is_done: Done) -> Iterator[dict[str, Any]]:
    """A record for each kind and round that is not there yet: the share of a core."""
    script = folder / "idle.py"
    script.write_text(SCRIPT)
    for kind, pause in KINDS.items():
        missing = [number for number in range(1, rounds + 1) if not is_done("idle", kind, number)]
        if not missing:
            continue
        for path in folder.glob("up*"):
            path.unlink()
        dtk = str(Path(sys.executable).parent / "dtk")
        words = [dtk, "launch", "--nproc", str(RANKS), "--device", "cpu", str(script), pause]
        run = start(words, folder)
        try:
            while len(list(folder.glob("up*"))) < RANKS:
                if run.poll() is not None:
                    raise ProcessFailed(f"dtk launch ended with exit code {run.returncode}", run.returncode)
                time.sleep(0.1)
            time.sleep(SETTLE)
            threads = threads_of((folder / "up0").read_text().split())
            (torchrun,) = map(int, Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split())
            for number in missing:
                with watching() as seen:
                    before = cpu_seconds(run.pid), cpu_seconds(torchrun)
                    time.sleep(SECONDS)
                    after = cpu_seconds(run.pid), cpu_seconds(torchrun)
                dtk_share, torchrun_share = (
                    round((b - a) / seen["seconds"], 5) for a, b in zip(before, after, strict=True)
                )
                yield {
                    "kind": "idle", "round": number, "ranks": kind, "dtk": dtk_share, "torchrun": torchrun_share,
                    "threads": threads, **seen,
                }  # fmt: skip
        finally:
            end(run)
