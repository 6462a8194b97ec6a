"""Runs torchrun as a child: signals, output, exit code, and nothing left behind. The one module that starts processes.

torchrun gets a session of its own, so that a Ctrl-C of the terminal reaches dtk alone and each rank gets one notice,
from torchrun, which forwards what it gets. It ignores SIGUSR1 and SIGUSR2 (its default is to die of them and leave its
ranks behind); dtk passes these to the ranks itself. torchrun is killed when dtk is, and each rank when torchrun is.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import BinaryIO

from dtk_launch import hostos
from dtk_launch.conclusion import conclude
from dtk_launch.diagnose.evidence import PREEMPTED
from dtk_launch.follow import Follower
from dtk_launch.nodes import OtherNodes
from dtk_launch.oom import OomWatch
from dtk_launch.plan import LaunchPlan
from dtk_launch.ranklist import parse_ranks
from dtk_launch.ranks import RankWatch
from dtk_launch.rundir import held_run_directory, launcher_log, write_plan
from dtk_launch.stalls import Stalls
from dtk_launch.status import NodeStatus
from dtk_launch.torchrun import Command
from dtk_launch.vitals import create_file, path_of

_POLL = 0.05  # seconds between looks at logs and records while ranks start, print or end
_LONGEST_POLL = 0.1  # and while they do none of it: with 8 ranks the shorter one takes 1 % of a core
_END_GRACE = 2.0  # seconds between SIGTERM and SIGKILL for processes that the ranks left behind
_DOUBLE_PRESS = 0.3  # a second SIGINT this soon is the same one, forwarded by a wrapper
_ENDING = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
_NOTICES = (signal.SIGUSR1, signal.SIGUSR2)


@dataclass
class _Received:
    """Signals that dtk got and has not acted on."""

    pending: list[int]

    def handle(self, signum: int, frame: FrameType | None) -> None:
        self.pending.append(signum)


def supervise(plan: LaunchPlan, command: Command, plan_text: Callable[[], str], as_json: bool) -> int:
    """Run the command in its run directory until it ends and return the run's exit code.

    The first node asks for the text of plan.json while torchrun starts: to look at a source tree takes time.

    Raises PlanError, before anything starts, if the run directory cannot be used. With `as_json`, stdout gets the
    result, one JSON object, and the ranks' output goes to stderr.
    """
    token = f"{socket.gethostname()}:{os.getpid()}"
    with held_run_directory(plan) as log:
        supervisor = _Supervisor(plan, command, token, log, as_json)
        supervisor.take_signals()
        code, signalled = supervisor.run(plan_text)
        words, hurry, last = supervisor.torchrun_words(), supervisor.interrupted, supervisor.status.facts()
        hang, oom = supervisor.stalls.found, supervisor.oom
        code = conclude(plan, supervisor.watch, words, code, signalled, oom, as_json, hurry, last, hang)
    for signum in _ENDING:  # Python's own end gives handlers back: SLURM's SIGTERM would then replace the code
        signal.signal(signum, signal.SIG_IGN)
    return code


class _Supervisor:
    """One run of one command."""

    def __init__(self, plan: LaunchPlan, command: Command, token: str, log: BinaryIO, as_json: bool) -> None:
        one_node = plan.topology.nodes == 1
        ranks = plan.run_dir / "ranks"
        host = None if one_node else socket.gethostname().partition(".")[0]
        self.oom = OomWatch()
        pages = create_file(plan.topology.nproc)
        self.watch = RankWatch(
            ranks, token, plan.topology.nproc, one_node, pages, lambda record: self.oom.add(record.pid)
        )
        self.stalls = Stalls(plan, self.watch, pages)
        self.status = NodeStatus(plan, self.watch, pages)
        quiet = parse_ranks(plan.quiet_ranks, "--quiet-ranks")
        self.follower = Follower(ranks, host, 2 if as_json else 1, 2, dict(os.environ), quiet)
        self._log_start = log.seek(0, os.SEEK_END)
        self._plan, self._command, self._log = plan, command, log
        self._environ = {**os.environ, **dict(command.env), "DTK_SUPERVISOR": token}
        self._environ.pop("DTK_VITALS", None)
        if pages is not None:
            self._environ["DTK_VITALS"] = path_of(pages)
        self._environ.pop("DTK_LIVE", None)
        if self.follower.live and one_node:
            self._environ["DTK_LIVE"] = "1"
        self._received = _Received([])
        self._others = OtherNodes(plan) if not one_node else None
        self._signalled: int | None = None
        self._signalled_at = 0.0

    def run(self, plan_text: Callable[[], str]) -> tuple[int, int | None]:
        """Start, follow, end: torchrun's exit code as Popen gives it, and the signal that ended it through dtk."""
        hostos.become_subreaper()
        child, pause = self._start(), _POLL
        try:
            if self._plan.topology.node == "0":
                write_plan(self._plan, plan_text())
            while child.poll() is None:
                self._act(child)
                busy = self._look() or not self.watch.all_run
                if self._signalled is None:
                    self.stalls.poll()
                pause = _POLL if busy else min(pause * 1.2, _LONGEST_POLL)
                self.watch.wait(pause)
        finally:
            child.kill()
            child.wait()
            self._end_the_rest()
        self._look(final=True)
        self.watch.close()
        return child.returncode, self._signalled

    def torchrun_words(self) -> str:
        """What torchrun wrote in this launch."""
        with open(launcher_log(self._plan), "rb") as file:
            file.seek(self._log_start)
            return file.read().decode(errors="replace")

    def interrupted(self) -> bool:
        """Whether a Ctrl-C has come that nothing has acted on."""
        return signal.SIGINT in self._received.pending

    def take_signals(self) -> None:
        """Signals are this object's from now on: one that comes when the end is being told must not change its code."""
        for signum in (*_ENDING, *_NOTICES):
            if signal.getsignal(signum) != signal.SIG_IGN or signum in _NOTICES:  # nohup and a shell's `&` stay obeyed
                signal.signal(signum, self._received.handle)

    def _start(self) -> subprocess.Popen[bytes]:
        parent = os.getpid()

        def in_child() -> None:
            hostos.die_with_parent()
            if os.getppid() != parent:
                os._exit(1)
            for signum in _NOTICES:
                signal.signal(signum, signal.SIG_IGN)

        return subprocess.Popen(
            self._command.argv,
            env=self._environ,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
            preexec_fn=in_child,
        )

    def _look(self, final: bool = False) -> bool:
        """See what is new. Whether a rank has printed."""
        self.watch.poll()
        for rank in self.watch.records:
            self.follower.add(rank)
        self.status.look(final)
        return self.follower.pump(final)

    def _act(self, child: subprocess.Popen[bytes]) -> None:
        """Pass on the signals that came. Ranks that have saved for preemption end the run, restarts left or not."""
        while self._received.pending:
            signum = self._received.pending.pop(0)
            if signum in _NOTICES:
                self.watch.signal(signum, child.pid)
            elif self._signalled is None:
                self._forward(child, signum)
            elif signum == signal.SIGINT and time.monotonic() - self._signalled_at > _DOUBLE_PRESS:
                child.kill()  # a second Ctrl-C: at once. A second SIGTERM says nothing new (SLURM sends two)
        others_failed = self._others is not None and self._others.failed()
        if self._signalled is None and (self._preempted() or others_failed or self.stalls.to_be_ended):
            self._forward(child, signal.SIGTERM)

    def _preempted(self) -> bool:
        """Whether a rank has ended with 75 and none in another way: one that failed is torchrun's to restart."""
        records = self.watch.records
        if any(record.exit is None and record.pid in self.watch.ended for record in records.values()):
            return False
        codes = {record.exit.code for record in records.values() if record.exit is not None}
        return PREEMPTED in codes and codes <= {0, PREEMPTED}

    def _forward(self, child: subprocess.Popen[bytes], signum: int) -> None:
        self._signalled, self._signalled_at = signum, time.monotonic()
        hostos.send(child.pid, signum)

    def _end_the_rest(self) -> None:
        """End and reap what torchrun and its ranks left behind. A Ctrl-C meanwhile ends the grace."""
        deadline = time.monotonic() + _END_GRACE
        told: set[int] = set()
        while rest := [pid for pid in hostos.descendants_of(os.getpid()) if pid != self.status.helper]:
            late = time.monotonic() > deadline or signal.SIGINT in self._received.pending
            for pid in rest:
                if late or pid not in told:
                    told.add(pid)
                    hostos.send(pid, signal.SIGKILL if late else signal.SIGTERM)
            _reap()
            time.sleep(0.01)
        _reap()


def _reap() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
