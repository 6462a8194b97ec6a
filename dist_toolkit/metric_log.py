"""`rt.log`: one reduced line of metrics to the terminal, metrics.jsonl and TensorBoard."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from dist_toolkit.errors import ConfigError
from dist_toolkit.group import Group
from dist_toolkit.logs import Progress
from dist_toolkit.metrics import MetricWindow


class MetricLog:
    """`rt.log(step, loss=loss)`: call it at every step, on every rank; a line is written every `log_every` steps.

    A line has, of each name, the mean over all values that any rank gave since the last line: all steps and all ranks,
    each value with the same weight (that of the loader in a last batch that is shared unevenly). A name that is not
    given at every step is averaged over the steps that gave it; in a window the names must be the same on all ranks.
    What was given since the last line when the run ends has no line unless `flush` writes it: the end of `with` cannot,
    since no rank knows there that all others end in order too.

    metrics.jsonl is only appended to. A run that was killed and resumed does some steps again, and writes their lines
    again: of a step that has several, the last value of each name counts (`read_metrics` goes by that). JSON has no
    nan and no infinity: both are written as null.
    """

    def __init__(
        self,
        group: Group,
        progress: Progress,
        folder: Path,
        every: int,
        tensorboard: Path | None,
        weight: Callable[[], float] = lambda: 1.0,
    ) -> None:
        self._group, self._progress, self._folder, self._every = group, progress, folder, every
        self._window = MetricWindow(group)
        self._weight = weight
        self._last_step = 0
        self._board: Any = None
        if tensorboard is not None:
            with group.watched("init(tensorboard=...)"):
                self._board = open_tensorboard(tensorboard, group)

    def __call__(self, step: int, **values: float | torch.Tensor) -> None:
        """Add one step's scalars. Collective at every `log_every`-th step; local, and without waiting, at others."""
        self._window.add(values, self._weight())
        self._last_step = step
        if step % self._every == 0:
            self.flush()

    def flush(self) -> None:
        """Write what came since the last line, if anything did, as of the last step. Collective."""
        means = self._window.reduce()
        if means and self._group.world.is_main:
            self._write(self._last_step, means)

    def close(self) -> None:
        """Write out what TensorBoard's writer still holds, and end its thread. Local."""
        if self._board is not None:
            self._board.close()
            self._board = None

    def _write(self, step: int, means: dict[str, float]) -> None:
        self._progress.line(f"step {step}  " + "  ".join(f"{name} {value:.4g}" for name, value in means.items()))
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json_line(step, round(time.time(), 3), means))
        if self._board is not None:
            for name, value in means.items():
                self._board.add_scalar(name, value, step)


def json_line(step: int, seconds: float, means: Mapping[str, float]) -> str:
    """A line of metrics.jsonl: `step`, `time` (of the epoch), the means; null for what is not finite."""
    finite = {name: value if math.isfinite(value) else None for name, value in means.items()}
    return json.dumps({"step": step, "time": seconds, **finite}, allow_nan=False) + "\n"


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """metrics.jsonl as a run without a break would have written it: one dict a step, in order of steps.

    Of several lines of a step, the last value of each name; nan for null. A line that a kill cut short is left out.
    """
    found: dict[int, dict[str, Any]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        values: dict[str, Any] = {name: math.nan if value is None else value for name, value in entry.items()}
        found.setdefault(values["step"], {}).update(values)
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
