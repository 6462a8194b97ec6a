"""How far a run has come, as far as the run directory and the rank logs show it: steps done, saved, gone on from."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from dtk_launch import nodes
from dtk_launch.early import newest_trainer_state
from dtk_launch.plan import LaunchPlan

_RESTORED = re.compile(rb"restored step (\d+) from ")  # dist_toolkit's own words, rank 0


@dataclass(frozen=True)
class Place:
    """A moment of a run: how long its files were. What comes later is the next launch's."""

    metrics: int
    log: int


@dataclass(frozen=True)
class Line:
    """A line of metrics.jsonl: the step, and the Unix time (s) at which it was written."""

    step: int
    time: float


class Progress:
    """Reads one run directory."""

    def __init__(self, plan: LaunchPlan, cwd: Path) -> None:
        self._plan, self._cwd = plan, cwd
        self._metrics = plan.run_dir / "metrics.jsonl"
        self._log = plan.run_dir / "ranks" / "0.err"

    def place(self) -> Place:
        """Now."""
        return Place(_size(self._metrics), _size(self._log))

    def lines(self, since: Place) -> list[Line]:
        """What has been logged since then, whole lines only."""
        found = []
        for text in _read(self._metrics, since.metrics).split(b"\n")[:-1]:
            try:
                values = json.loads(text)
                found.append(Line(int(values["step"]), float(values["time"])))
            except (ValueError, KeyError, TypeError):
                continue
        return found

    def saved(self, since_ns: int = 0) -> int | None:
        """The newest committed step of dist_toolkit, else that of a Trainer written after `since_ns`; None: unknown."""
        steps = [
            int(path.parent.name.removeprefix("step-"))
            for path in self._plan.run_dir.glob("checkpoints/step-*/manifest.json")
            if path.parent.name.removeprefix("step-").isdigit()
        ]
        if steps:
            return max(steps)
        state = newest_trainer_state(self._plan.target, self._cwd)
        return state.step if state is not None and state.time_ns >= since_ns else None

    def counted(self) -> int | None:
        """Optimizer steps of the last start, of the rank that made most, as dtk counted them; None if it saw none."""
        rows = nodes.entries(self._plan.run_dir).get(self._plan.topology.node, {}).get("ranks", [])
        return max((int(row["steps"]) for row in rows if "steps" in row), default=None)

    def restored(self, since: Place) -> int | None:
        """The step that the script has said since then that it goes on from; None if it has not."""
        said = _RESTORED.search(_read(self._log, since.log))
        return int(said[1]) if said else None


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _read(path: Path, offset: int) -> bytes:
    try:
        with open(path, "rb") as file:
            file.seek(offset)
            return file.read()
    except OSError:
        return b""
