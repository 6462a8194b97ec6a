"""`dtk launch --preempt-test 20s`: what a scheduler does that wants its machine back, done to one's own run.

The run is started; this time after its ranks have begun, dtk sends itself SIGTERM, and so the ranks get their notice
and their grace. The same is then started again at once, in the same run directory, and runs to its end. Said is what
was lost in between.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from dtk_launch.diagnose.evidence import PREEMPTED
from dtk_launch.durations import parse_seconds
from dtk_launch.launching import Launch
from dtk_launch.preempt_report import Report, resumed_step, seconds_to_return, words
from dtk_launch.progress import Place, Progress
from dtk_launch.stopping import ENDING
from dtk_launch.supervisor import supervise


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


def _tell(report: Report, as_json: bool) -> None:
    for line in words(report):
        _say(line)
    if as_json:
        print(
            json.dumps({"preempt_test": {**asdict(report), "lost_steps": report.lost_steps}, "exit_code": report.code})
        )


def _newest(*steps: int | None) -> int | None:
    return max((step for step in steps if step is not None), default=None)


def _say(text: str) -> None:
    print(f"dtk: preempt test: {text}", file=sys.stderr, flush=True)
