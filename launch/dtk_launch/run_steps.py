"""How far a run has come, by the files of its directory: the last logged step and the last checkpoint."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Goal:
    """What goal.json says: the run went on from step `begin` at Unix time `time`, and ends with step `until`."""

    begin: int
    until: int
    time: float

    def seconds_left(self, step: int, when: float, now: float) -> float | None:
        """From `now` to the end of the run, which was at `step` at Unix time `when`; None where that is not known yet.

        By the mean pace since it went on, in which evaluations and saves count.
        """
        done, took = step - self.begin, when - self.time
        if done <= 0 or took <= 0 or step >= self.until:
            return None
        return max(0.0, (self.until - step) * took / done - max(0.0, now - when))


def read_goal(folder: Path) -> Goal | None:
    """The goal of the run's last start that had one."""
    try:
        values = json.loads((folder / "goal.json").read_text(encoding="utf-8"))
        return Goal(int(values["from"]), int(values["until"]), float(values["time"]))
    except (OSError, ValueError, TypeError, KeyError):
        return None


def last_checkpoint(folder: Path) -> int | None:
    """The last committed step, in `checkpoints` or in the run directory itself (docs/checkpoint-format.md)."""
    steps = []
    for place in (folder / "checkpoints", folder):
        with contextlib.suppress(OSError):
            names = (_STEP.fullmatch(name) for name in os.listdir(place))  # noqa: PTH208
            found = [match for match in names if match and (place / match[0] / "manifest.json").exists()]
            steps += [int(match[1]) for match in found]
    return max(steps, default=None)
