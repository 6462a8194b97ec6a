"""The course of a run: one workload after the other, all modes on it together, and what fails left behind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from bench_parts.processes import ProcessFailed
from bench_parts.records import Record, Records

from . import fitting
from .arguments import Options
from .cases import Mode, Workload, groups
from .kept import Kept
from .modes import count, running
from .rounds import Turns, calibrate, measure

Add, Say = Callable[[Record], None], Callable[[str], None]


class Course:
    """One run."""

    def __init__(self, options: Options, add: Add, say: Say, done: Records) -> None:
        self._options, self._add, self._say = options, add, say
        self._kept = Kept(done)
        self._failed: list[str] = []
        self._total = 0

    def run(self) -> None:
        """Measure all that is not there yet.

        Raises:
            ProcessFailed: at the end, if a mode failed; all the others were measured.
        """
        for workload in self._options.workloads():
            modes = self._options.modes(workload)
            self._total += len(modes)
            self._count(workload)
            missing = [mode for mode in modes if not self._kept.has_all(mode, self._options.rounds)]
            steps = self._kept.steps(workload)
            for group in groups(missing, self._options.size, self._options.room_gib, self._options.at_once):
                steps = self._measure(workload, group, steps)
            for mode in modes:
                if self._options.find_batch and not self._kept.has_fit(mode):
                    self._find(mode)
        if self._failed:
            names = ", ".join(self._failed)
            raise ProcessFailed(f"failed: {names}; the rest of {self._total} was measured", failed=names)

    def _count(self, workload: Workload) -> None:
        model = workload.model
        if not self._kept.has_model(model):
            self._say(f"{model}: counting its operations ...")
            self._add({"kind": "model", "model": model, "size": self._options.size, **count(model, self._options.size)})
            self._kept.add_model(model)

    def _measure(self, workload: Workload, modes: Sequence[Mode], steps: int | None) -> int | None:
        """The modes that are alive at once; the steps of a block, which those that follow have too."""
        name = f"{workload.model} {workload.precision}, batch {workload.batch}"
        self._say(f"{name}: starting {', '.join(mode.label for mode in modes)} ...")
        with running(self._options, modes, self._tell) as teams:
            for team in teams:
                together = [mode.label for mode in modes]
                self._add({"kind": "setup", **team.mode.key, "together": together, **team.hello})
            turns = Turns(teams, self._tell)
            if steps is None and teams:
                self._say(f"{name}: finding the number of steps in a block ...")
                steps = calibrate(turns, self._options.block_seconds)
                self._add({"kind": "steps", **_key(workload), "steps": steps})
            for record in measure(turns, steps or 1, self._options.rounds, self._kept.has_block):
                self._add(record)
        return steps

    def _find(self, mode: Mode) -> None:
        self._say(f"{mode.name}: finding the largest batch that fits ...")
        try:
            self._add(fitting.find(self._options, mode))
        except ProcessFailed as error:
            self._tell(mode, error)

    def _tell(self, mode: Mode, error: ProcessFailed) -> None:
        """Note a failure, and go on."""
        self._say(str(error))
        text = str(error)
        self._add({"kind": "failed", **mode.key, "why": reason(text)})
        self._failed.append(mode.name)


def reason(text: str) -> str:
    """One line of the end of a failed mode's output: the exception, where one can be told."""
    lines = [line.strip() for line in text.splitlines()]
    named = [line for line in lines if _is_exception(line)]
    return (named[-1] if named else lines[0])[:300]


def _is_exception(line: str) -> bool:
    name, colon, _ = line.partition(": ")
    return bool(colon) and " " not in name and name.endswith(("Error", "Exception", "Errors"))


def _key(workload: Workload) -> dict[str, Any]:
    return {"model": workload.model, "precision": workload.precision, "batch": workload.batch}
