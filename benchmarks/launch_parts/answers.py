"""How long a command takes that starts no rank."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench_parts.watch import watching

from .commands import run
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
    for number, order in turns(list(argv), rounds):
        missing = [label for label in order if not is_done("answer", label, number)]
        with watching() as seen:
            for label in missing:
                began = time.perf_counter()
                run(argv[label], folder)
                seconds = time.perf_counter() - began
                if number:
                    yield {"kind": "answer", "round": number, "command": label, "seconds": round(seconds, 4)}
        if missing and number:
            yield {"kind": "others", "part": "answers", "round": number, **seen}
