"""How far a run has come, by the files of its directory: the last logged step and the last checkpoint."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
from pathlib import Path

_END = 1 << 16  # bytes of metrics.jsonl that are read
_STEP = re.compile(r"step-(\d{8,})")


def last_metrics(path: Path) -> tuple[int | None, float, tuple[str, float] | None]:
    """(step, time, (name, value)) of the last line of metrics.jsonl: `loss`, else its first metric. Reads the end."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _END))
            lines = file.read().split(b"\n")[:-1]
    except OSError:
        return None, 0.0, None
    for line in reversed(lines):
        try:
            values = json.loads(line)
            step, when = int(values.pop("step")), float(values.pop("time", 0))
        except (ValueError, KeyError, AttributeError, TypeError):
            continue  # cut short by a kill, or by where the reading began
        name = "loss" if "loss" in values else next(iter(values), None)
        if name is None:
            return step, when, None
        return step, when, (name, math.nan if values[name] is None else float(values[name]))
    return None, 0.0, None


def last_checkpoint(folder: Path) -> int | None:
    """The last committed step, in `checkpoints` or in the run directory itself (docs/checkpoint-format.md)."""
    steps = []
    for place in (folder / "checkpoints", folder):
        with contextlib.suppress(OSError):
            names = (_STEP.fullmatch(name) for name in os.listdir(place))  # noqa: PTH208
            found = [match for match in names if match and (place / match[0] / "manifest.json").exists()]
            steps += [int(match[1]) for match in found]
    return max(steps, default=None)
