"""`dtk launch --preempt-test 20s`: what a scheduler does that wants its machine back, done to one's own run.

The run is started; this time after its ranks have begun, dtk sends itself SIGTERM, and so the ranks get their notice
and their grace. The same is then started again at once, in the same run directory, and runs to its end. Said is what
was lost in between.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from dtk_launch.diagnose.evidence import PREEMPTED
from dtk_launch.durations import parse_seconds
from dtk_launch.launching import Launch
from dtk_launch.progress import Line, Place, Progress
from dtk_launch.stopping import ENDING
from dtk_launch.supervisor import supervise

LOST = 74
"""Exit code: work was lost, or nothing shows that none was (EX_IOERR)."""

_TOO_SOON = (
    "the notice came before the first step of the script that dtk has seen: nothing could be lost yet, and so nothing "
    "was tested; pass a longer time (docs/preemption.md says which steps dtk sees)"
)


@dataclass(frozen=True)
class Report:
    """What the test has seen. None: nothing shows it. Steps are optimizer steps as the script counts them."""

    exit_code: int
    """Of the run that got the notice."""
    step_at_notice: int | None = None
    """The newest that was logged or saved by then."""
    last_step: int | None = None
    """The same at the end of that run."""
    saved_step: int | None = None
    resumed_step: int | None = None
    """The step that the second run went on from."""
    seconds_to_end: float | None = None
    """From the notice to the end of the last process."""
    seconds_to_return: float | None = None
    """From the second start to the first step that the first run had not done."""
    second_exit_code: int | None = None
    counted_at_notice: int | None = None
    """Optimizer steps that dtk itself has counted since the start, whatever the script says, by the notice."""
    counted_at_end: int | None = None
    """The same by the end of that run."""
    counted_again: int | None = None
    """Those of the second run, from its own start on."""
    steps_seen: bool = True
    """Whether the run that got the notice logged a step, or dtk has counted one."""

    @property
    def lost_steps(self) -> int | None:
        """Steps that the second run had to do again."""
        if self.last_step is None or self.resumed_step is None:
            return None
        return max(0, self.last_step - self.resumed_step)

    @property
    def code(self) -> int:
        """The exit code of the test."""
        if self.exit_code != PREEMPTED:
            return LOST
        return self.second_exit_code or (0 if self.lost_steps == 0 else LOST)


def run(launch: Launch, plan_text: Callable[[], str]) -> int:
    """Do the test and say what came of it; with --json as one object on stdout. Raises PlanError as `supervise` does.

    A run that ends before its notice, or that is ended by another, is no test: its own exit code is returned.
    """
    options = launch.options
    progress = Progress(launch.plan, Path.cwd())
    spare = _Spare()
    notice = _Notice(parse_seconds("--preempt-test", options.preempt_test), progress)
    before = progress.place()
    spare.take()
    code = _supervise(launch, plan_text, notice.arm)
    ended = time.monotonic()
    spare.take()  # the run leaves them ignored
    if not notice.disarm():
        _say(f"the run ended before its notice at {options.preempt_test}, so nothing was tested")
        return code
    report = _first(progress, before, notice, code, ended - notice.at)
    for signum in spare.came:
        return 128 + signum
    if code == PREEMPTED:
        report = _again(launch, plan_text, progress, report)
    _tell(report, options.json)
    return report.code


class _Notice:
    """SIGTERM to this process, once, some time after all ranks have started."""

    def __init__(self, seconds: float, progress: Progress) -> None:
        self.at = 0.0
        """time.monotonic() of it."""
        self.time_ns = 0
        self.saved: int | None = None
        self.counted: int | None = None
        self._progress, self._lock, self._over = progress, threading.Lock(), False
        self._since_ns = 0
        self._count: Callable[[], int | None] = lambda: None
        self._timer = threading.Timer(seconds, self._send)
        self._timer.daemon = True

    def arm(self, count: Callable[[], int | None]) -> None:
        """Start the clock. `count` gives the optimizer steps so far."""
        self._since_ns, self._count = time.time_ns(), count
        self._timer.start()

    def disarm(self) -> bool:
        """No notice from now on; whether there was one."""
        with self._lock:
            self._over = True
        self._timer.cancel()
        return self.at > 0

    def _send(self) -> None:
        with self._lock:
            if not self._over:
                self.counted = self._count()
                self.saved = self._progress.saved(self._since_ns)
                self.at, self.time_ns = time.monotonic(), time.time_ns()
                os.kill(os.getpid(), signal.SIGTERM)


class _Spare:
    """Notes signals that come while no run is there to take them: a late notice must not end dtk."""

    def __init__(self) -> None:
        self.came: list[int] = []
        # nohup and a shell's `&` stay obeyed
        self._mine = [signum for signum in ENDING if signal.getsignal(signum) != signal.SIG_IGN]

    def take(self) -> None:
        """From now on, until a run takes them."""
        for signum in self._mine:
            signal.signal(signum, lambda number, _: self.came.append(number))


def _supervise(
    launch: Launch, plan_text: Callable[[], str], started: Callable[[Callable[[], int | None]], None] | None = None
) -> int:
    as_json = launch.options.json
    with contextlib.redirect_stdout(io.StringIO()) if as_json else contextlib.nullcontext():
        return supervise(launch.plan, launch.command, plan_text, as_json, started)


def _first(progress: Progress, before: Place, notice: _Notice, code: int, seconds: float) -> Report:
    lines, saved = progress.lines(before), progress.saved(notice.time_ns)
    logged = [line.step for line in lines]
    by_then = [line.step for line in lines if line.time * 1e9 <= notice.time_ns]
    return Report(
        exit_code=code,
        step_at_notice=_newest(*by_then, notice.saved),
        last_step=_newest(*logged, saved),
        saved_step=saved,
        seconds_to_end=round(seconds, 3),
        counted_at_notice=notice.counted,
        counted_at_end=progress.counted(),
        steps_seen=bool(lines or notice.counted or progress.counted()),
    )


def _again(launch: Launch, plan_text: Callable[[], str], progress: Progress, report: Report) -> Report:
    _say("saved after the notice; starting the same again")
    place, began = progress.place(), time.time()
    code = _supervise(launch, plan_text)
    lines = progress.lines(place)
    return Report(
        **{
            **asdict(report),
            "second_exit_code": code,
            "resumed_step": resumed_step(progress.restored(place), lines, report.last_step),
            "seconds_to_return": seconds_to_return(lines, report.last_step, began),
            "counted_again": progress.counted(),
        }
    )


def resumed_step(said: int | None, lines: list[Line], last_step: int | None) -> int | None:
    """The step that a run went on from: as it said, else, where it logs each step, the one before its first line."""
    if said is not None or not lines:
        return said
    each = all(after.step == before.step + 1 for before, after in itertools.pairwise(lines))
    first = lines[0].step
    return first - 1 if each and (len(lines) > 1 or first - 1 == last_step) else None


def seconds_to_return(lines: list[Line], last_step: int | None, began: float) -> float | None:
    """Seconds from the start until the run had logged a step beyond `last_step`."""
    if last_step is None:
        return None
    return next((round(line.time - began, 3) for line in lines if line.step > last_step), None)


def words(report: Report) -> list[str]:
    """The report as lines for people."""
    took = f"{report.seconds_to_end:.1f} s after the notice" if report.seconds_to_end is not None else ""
    if report.exit_code != PREEMPTED:
        return [
            f"the run ended with {report.exit_code} {took}, not with 75 (saved, start me again)",
            f"newest step logged or saved: {_known(report.last_step)}; newest step saved: {_known(report.saved_step)}",
            *_counted(report),
            "work was lost, or nothing shows that none was; docs/preemption.md says what a script must do"
            if report.steps_seen
            else _TOO_SOON,
        ]
    back = report.seconds_to_return
    lines = [
        f"step at the notice: {_known(report.step_at_notice)}; saved: {_known(report.saved_step)}; ended {took}",
        f"went on from step: {_known(report.resumed_step)}; "
        + (
            f"past step {report.last_step} {back:.1f} s after the start" if back is not None else "no later step logged"
        ),
    ]
    if report.second_exit_code:
        lines.append(f"started again, the run ended with {report.second_exit_code}")
    if report.lost_steps is None:
        unknown = "lost: unknown, for nothing shows from which step it went on; see the output of rank 0"
        return [*lines, *_counted(report), unknown if report.steps_seen else _TOO_SOON]
    return [*lines, f"lost: {report.lost_steps} steps" if report.lost_steps else "lost: nothing"]


def _counted(report: Report) -> list[str]:
    """What the heartbeat shows of a script that says nothing: how much was done, not what was kept."""
    if report.counted_at_end is None:
        return []
    by_notice = f"{report.counted_at_notice or 0} by the notice, {report.counted_at_end} by the end"
    again = f", {report.counted_again} after the second start" if report.counted_again is not None else ""
    return [f"optimizer steps that dtk has counted: {by_notice}{again}"]


def _tell(report: Report, as_json: bool) -> None:
    for line in words(report):
        _say(line)
    if as_json:
        print(
            json.dumps({"preempt_test": {**asdict(report), "lost_steps": report.lost_steps}, "exit_code": report.code})
        )


def _newest(*steps: int | None) -> int | None:
    return max((step for step in steps if step is not None), default=None)


def _known(step: int | None) -> str:
    return "unknown" if step is None else str(step)


def _say(text: str) -> None:
    print(f"dtk: preempt test: {text}", file=sys.stderr, flush=True)
