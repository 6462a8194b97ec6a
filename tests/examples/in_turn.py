"""Runs examples one after the other in ranks that start once: `in_turn.py CASES`, a JSON list of [name, script, args].

Each has its own folder and run directory below the current one, and `__name__` is `__main__` in it. Rank 0 prints a
line with MARK before each; one that raises ends all.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
from pathlib import Path

import torch.distributed as dist

MARK = "=== "
EXAMPLES = Path(__file__).parents[2] / "examples"


def main(cases: list[tuple[str, str, list[str]]]) -> None:
    """Run them."""
    rank, root = os.environ.get("RANK", "0"), Path.cwd()
    if "RANK" in os.environ:
        dist.init_process_group("gloo")  # of all of them: each adopts it
    sys.path[0] = str(EXAMPLES)
    for name, script, args in cases:
        folder = root / name
        folder.mkdir(exist_ok=True)
        os.chdir(folder)
        os.environ["DTK_RUN_DIR"] = str(folder / "run")
        if rank == "0":
            print(f"{MARK}{name}", flush=True)
        sys.argv = [script, *args]
        runpy.run_path(str(EXAMPLES / script), run_name="__main__")
    if dist.is_initialized():
        dist.destroy_process_group()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
