"""From the command to the first line of the user's script, on the last rank to come to it, and to the end."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench_parts.watch import watching

from .commands import run
from .turns import Done, turns

BASELINE = "torchrun"
RANKS = 2
SCRIPT = """import os, time
now = time.time_ns()
with open("first" + os.environ["RANK"], "w") as file:
    file.write(f"{now} {os.environ.get('OMP_NUM_THREADS', '')}")
"""


def commands(script: Path) -> dict[str, list[str]]:
    """Label -> argv."""
    programs = Path(sys.executable).parent
    found = {
        BASELINE: [str(programs / "torchrun"), "--standalone", "--nproc-per-node", str(RANKS), str(script)],
        "dtk launch": [str(programs / "dtk"), "launch", "--nproc", str(RANKS), str(script)],
    }
    accelerate = programs / "accelerate"
    if accelerate.exists():  # with --cpu it would start one process; the script uses no GPU
        words = ["--multi_gpu", "--num_processes", str(RANKS), "--num_machines", "1", "--mixed_precision", "no"]
        found["accelerate launch"] = [str(accelerate), "launch", *words, "--dynamo_backend", "no", str(script)]
    return found


def measure(folder: Path, rounds: int, is_done: Done) -> Iterator[dict[str, Any]]:
    """A record for each start that is not there yet."""
    script = folder / "first_line.py"
    script.write_text(SCRIPT)
    argv = commands(script)
    for number, order in turns(list(argv), rounds):
        missing = [label for label in order if not is_done("start", label, number)]
        with watching() as seen:
            for label in missing:
                record = _start(argv[label], folder)
                if number:
                    yield {"kind": "start", "round": number, "command": label, **record}
        if missing and number:
            yield {"kind": "others", "part": "starts", "round": number, **seen}


def _start(words: list[str], folder: Path) -> dict[str, Any]:
    """Seconds to the first line and to the end, and the threads that OMP_NUM_THREADS gave a rank, None if unset."""
    began = time.time_ns()
    run(words, folder)
    ended = time.time_ns()
    lines = [(folder / f"first{rank}").read_text().split() for rank in range(RANKS)]
    first, total = (round((moment - began) / 1e9, 4) for moment in (max(int(line[0]) for line in lines), ended))
    return {"seconds": first, "total": total, "threads": threads_of(lines[0][1:])}


def threads_of(words: list[str]) -> int | None:
    """What a script has written of OMP_NUM_THREADS; None if unset."""
    return int(words[0].partition(",")[0]) if words else None
