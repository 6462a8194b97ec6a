"""From the command to the first line of the user's script, on the last rank to come to it, and to the end."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .turns import turns

BASELINE = "torchrun"
RANKS = 2
SCRIPT = "import os, time; open('first' + os.environ['RANK'], 'w').write(str(time.time_ns()))\n"


def commands(script: Path) -> dict[str, list[str]]:
    """Label -> argv."""
    programs = Path(sys.executable).parent
    return {
        BASELINE: [str(programs / "torchrun"), "--standalone", "--nproc-per-node", str(RANKS), str(script)],
        "dtk launch": [str(programs / "dtk"), "launch", "--nproc", str(RANKS), str(script)],
    }


def measure(folder: Path, rounds: int) -> Iterator[dict[str, Any]]:
    """A record for each start."""
    script = folder / "first_line.py"
    script.write_text(SCRIPT)
    argv = commands(script)
    for number, label in turns(list(argv), rounds):
        began = time.time_ns()
        subprocess.run(argv[label], stdin=subprocess.DEVNULL, capture_output=True, check=True, cwd=folder)
        ended = time.time_ns()
        lines = [int((folder / f"first{rank}").read_text()) for rank in range(RANKS)]
        first, total = (round((moment - began) / 1e9, 4) for moment in (max(lines), ended))
        if number >= 0:
            yield {"kind": "start", "round": number, "command": label, "seconds": first, "total": total}
