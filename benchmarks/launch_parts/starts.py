"""From the command to the first line of the user's script, on the last rank to come to it, and to the end."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .turns import Done, turns

BASELINE = "torchrun"
RANKS = 2
SCRIPT = "import os, time; open('first' + os.environ['RANK'], 'w').write(str(time.time_ns()))\n"


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
    for number, label in turns(list(argv), rounds):
        if is_done("start", label, number):
            continue
        began = time.time_ns()
        subprocess.run(argv[label], stdin=subprocess.DEVNULL, capture_output=True, check=True, cwd=folder)
        ended = time.time_ns()
        lines = [int((folder / f"first{rank}").read_text()) for rank in range(RANKS)]
        first, total = (round((moment - began) / 1e9, 4) for moment in (max(lines), ended))
        if number >= 0:
            yield {"kind": "start", "round": number, "command": label, "seconds": first, "total": total}
