"""How long a command takes that starts no rank."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .turns import Done, turns

BASELINE = "torchrun --help"


def commands(script: Path) -> dict[str, list[str]]:
    """Label -> argv."""
    programs = Path(sys.executable).parent
    dtk = str(programs / "dtk")
    return {
        "python -c pass": [sys.executable, "-c", "pass"],
        "dtk --help": [dtk, "--help"],
        "dtk launch --help": [dtk, "launch", "--help"],
        "dtk launch --dry-run": [dtk, "launch", "--nproc", "2", "--dry-run", str(script)],
        "dtk explain": [dtk, "explain", "--nproc", "2", str(script)],
        BASELINE: [str(programs / "torchrun"), "--help"],
    }


def measure(folder: Path, rounds: int, is_done: Done) -> Iterator[dict[str, Any]]:
    """A record for each start that is not there yet."""
    script = folder / "train.py"
    script.write_text("print('never run')\n")
    argv = commands(script)
    for number, label in turns(list(argv), rounds):
        if is_done("answer", label, number):
            continue
        began = time.perf_counter()
        subprocess.run(argv[label], stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL, check=True, cwd=folder)
        seconds = time.perf_counter() - began
        if number >= 0:
            yield {"kind": "answer", "round": number, "command": label, "seconds": round(seconds, 4)}
