"""`goal.json` in the run directory: how many steps a run is to make, for whoever watches it (docs/wire.md)."""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from pathlib import Path

NAME = "goal.json"


def note_goal(folder: Path, step: int, until: int | None) -> None:
    """Write that the run goes on from `step`, to `until`; None: nobody knows. A failed write changes nothing.

    One process writes this.
    """
    path, beside = folder / NAME, folder / f".{NAME}.tmp"
    with suppress(OSError):
        if until is None:
            path.unlink(missing_ok=True)
            return
        beside.write_text(json.dumps({"from": step, "until": until, "time": time.time()}) + "\n", encoding="utf-8")
        os.replace(beside, path)  # noqa: PTH105
