"""`rt.log`: one reduced line of metrics to the terminal, metrics.jsonl and TensorBoard."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import torch

from dist_toolkit.errors import ConfigError
from dist_toolkit.group import Group
from dist_toolkit.logs import Progress
from dist_toolkit.metrics import MetricWindow


class MetricLog:
    """`rt.log(step, loss=loss)`: means over the steps since the last line, and over ranks; written once.

    metrics.jsonl is only appended to. A run that was killed and resumed does some steps again, and writes their lines
    again: the last line of a step is the one that counts (`read_metrics` goes by that).
    """

    def __init__(self, group: Group, progress: Progress, folder: Path, every: int, tensorboard: Path | None) -> None:
        self._group, self._progress, self._folder, self._every = group, progress, folder, every
        self._window = MetricWindow(group)
        self._board: Any = None
        if tensorboard is not None:
            self._board = open_tensorboard(tensorboard, group)

    def __call__(self, step: int, **values: float | torch.Tensor) -> None:
        """Add one step's scalars. Collective at every `log_every`-th step; local, and without waiting, at others."""
        self._window.add(values)
        if step % self._every == 0:
            means = self._window.reduce()
            if self._group.world.is_main:
                self._write(step, means)

    def close(self) -> None:
        """Write out what TensorBoard's writer still holds, and end its thread."""
        if self._board is not None:
            self._board.close()
            self._board = None

    def _write(self, step: int, means: dict[str, float]) -> None:
        self._progress.line(f"step {step}  " + "  ".join(f"{name} {value:.4g}" for name, value in means.items()))
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, "time": round(time.time(), 3), **means}) + "\n")
        if self._board is not None:
            for name, value in means.items():
                self._board.add_scalar(name, value, step)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics.jsonl as a run without a break would have written them: by step, the last of each.

    A line that a kill cut short is left out.
    """
    found: dict[int, dict[str, Any]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        found[entry["step"]] = entry
    return [found[step] for step in sorted(found)]


def open_tensorboard(folder: Path, group: Group) -> Any:
    """TensorBoard's writer on rank 0, None on others. Collective: a missing package is an error on every rank.

    A resumed run goes on in the same folder; TensorBoard shows the events of its files as one run, and hides those of
    steps that were done again.
    """
    writer, error = None, None
    if group.world.is_main:
        try:
            from torch.utils.tensorboard import SummaryWriter

            writer = SummaryWriter(str(folder), flush_secs=10)
        except ImportError as caught:
            error = f"tensorboard= needs the package tensorboard ({caught}); pip install tensorboard, or leave it out"
        except OSError as caught:
            error = f"tensorboard={str(folder)!r} cannot be written: {caught}"
    error = group.broadcast_json(error)
    if error is not None:
        raise ConfigError(error)
    return writer
