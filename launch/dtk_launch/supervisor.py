"""Runs torchrun as a child: signals, output, exit code, and nothing left behind. The one module that starts processes.

torchrun gets a session of its own, so that a Ctrl-C of the terminal reaches dtk alone and each rank gets one notice,
from dtk (stopping.py). It ignores SIGUSR1 and SIGUSR2: its default is to die of them and leave its ranks behind.
torchrun is killed when dtk is, and each rank when torchrun is.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import BinaryIO

from dtk_launch import controller, hostos, prestart
from dtk_launch.absent import Absent
from dtk_launch.asking import ask
from dtk_launch.conclusion import conclude
from dtk_launch.early import stopped_early
from dtk_launch.faults import Faults
from dtk_launch.fence import Fence
from dtk_launch.follow import Follower
from dtk_launch.gathering import Gathering
from dtk_launch.job_record import JobRecord
from dtk_launch.leftovers import end_the_rest
from dtk_launch.nodes import OtherNodes
from dtk_launch.oom import OomWatch
from dtk_launch.outcome import Ending
from dtk_launch.plan import LaunchPlan
from dtk_launch.ranklist import parse_ranks
from dtk_launch.ranks import RankWatch
from dtk_launch.rundir import held_run_directory, launcher_log, write_plan
from dtk_launch.stalls import Stalls
from dtk_launch.status import NodeStatus
from dtk_launch.stopping import ENDING, NOTICES, Stopping
from dtk_launch.torchrun import Command
from dtk_launch.vitals import create_file, path_of
from dtk_launch.waking import awake_at_once

_OVERTAKEN = "dtk: SLURM has started this job again, in {}; the ranks of this start were killed"
_OVERTAKEN_CODE = 1
_GOES_ON = "the ranks begin again without it, from the last checkpoint"
_ENDS = "the run cannot go on"
_POLL = 0.05  # seconds between looks at logs and records while ranks start, print or end
_LONGEST_POLL = 0.1  # and while they do none of it: with 8 ranks the shorter one takes 1 % of a core


@dataclass
class _Received:
    """Signals that dtk got and has not acted on."""

    pending: list[int]

    def handle(self, signum: int, frame: FrameType | None) -> None:
        """Note the signal, no more: it may come within anything."""
        self.pending.append(signum)


def supervise(
    plan: LaunchPlan,
    command: Command,
    plan_text: Callable[[], str],
    as_json: bool,
    when_started: Callable[[Callable[[], int | None]], None] | None = None,
) -> int:
    """Run the command in its run directory until it ends and return the run's exit code.

    The first node asks for the text of plan.json while torchrun starts: to look at a source tree takes time.

    Raises PlanError, before anything starts, if the run directory cannot be used. With `as_json`, stdout gets the
    result, one JSON object, and the ranks' output goes to stderr. `when_started` is called once all ranks of this
    node have started; what it gets tells how many optimizer steps they have made, None where that is not known.
    """
    token = f"{socket.gethostname()}:{os.getpid()}"
    fence = Fence(plan.run_dir, os.environ)
    with held_run_directory(plan, fence) as log:
        supervisor = _Supervisor(plan, command, token, log, as_json, fence)
        supervisor.take_signals()
        with awake_at_once():
            code, signalled = supervisor.run(plan_text, when_started)
        if supervisor.overtaken:  # nothing of it counts, and its files are another's by now
            with contextlib.suppress(OSError):
                print(_OVERTAKEN.format(plan.run_dir), file=sys.stderr, flush=True)
            return _OVERTAKEN_CODE
        if code != 0 and signalled is None and controller.job_id_in(os.environ) is not None:
            supervisor.absent.look_for_the_first()
        words, hurry, last = supervisor.torchrun_words(), supervisor.interrupted, supervisor.status.facts()
        ending = Ending(
            code,
            signalled,
            supervisor.stopped_early(),
            supervisor.stalls.found,
            supervisor.others_failed(),
            tuple(supervisor.absent.lost.values()) if supervisor.absent.is_over else (),
        )
        code = conclude(plan, supervisor.watch, words, ending, supervisor.oom, as_json, hurry, last)
        if ending.lost and supervisor.absent.leads:
            _requeue_for_the_batch_host(plan.run_dir, os.environ)
    for signum in ENDING:  # Python's own end gives handlers back: SLURM's SIGTERM would then replace the code
        signal.signal(signum, signal.SIG_IGN)
    return code


def _requeue_for_the_batch_host(run_dir: Path, environ: Mapping[str, str]) -> None:
    """With --no-kill a job holds its nodes until its time is up when the host of its batch script has died.

    srun has died there too, and with it the way of this node's output into the job's log: it is written from here.
    """
    job_id, record = controller.job_id_in(environ), JobRecord.read(run_dir)
    if job_id is None:
        return
    words = f"dtk: job {job_id}: the node of its batch script is lost; it is requeued"
    with contextlib.suppress(OSError):
        if record is not None and not record.array:
            with open(record.log, "a", encoding="utf-8") as log:
                print(words, file=log)
    if refusal := controller.requeue(job_id):
        print(f"{words}? {refusal}; it is cancelled", file=sys.stderr, flush=True)
        ask(("scancel", job_id))


class _Supervisor:
    """One run of one command."""

    def __init__(
        self, plan: LaunchPlan, command: Command, token: str, log: BinaryIO, as_json: bool, fence: Fence
    ) -> None:
        one_node = plan.topology.nodes == 1
        ranks = plan.run_dir / "ranks"
        host = None if one_node else socket.gethostname().partition(".")[0]
        self.oom = OomWatch()
        nproc = plan.topology.nproc
        pages = create_file(nproc)
        faults = None if pages is None else Faults(nproc)
        self.watch = RankWatch(ranks, token, nproc, one_node, pages, faults, lambda record: self.oom.add(record.pid))
        self.stalls = Stalls(plan, self.watch, pages)
        self.status = NodeStatus(plan, self.watch, pages, self.stalls.in_words)
        self.absent = Absent(plan, {**os.environ, **dict(plan.env)}, self.status.counted)
        quiet = parse_ranks(plan.quiet_ranks, "--quiet-ranks")
        self.follower = Follower(ranks, host, 2 if as_json else 1, 2, dict(os.environ), quiet)
        self._log_start = log.seek(0, os.SEEK_END)
        self._plan, self._command, self._log = plan, command, log
        self._environ = {**os.environ, **dict(command.env), "DTK_SUPERVISOR": token}
        for name in ("DTK_VITALS", "DTK_FAULTS", "DTK_LIVE"):
            self._environ.pop(name, None)
        if pages is not None:
            self._environ["DTK_VITALS"] = path_of(pages)
        if faults is not None:
            self._environ["DTK_FAULTS"] = faults.paths
        if self.follower.live and one_node:
            self._environ["DTK_LIVE"] = "1"
        self._received = _Received([])
        self._fence = fence
        self.overtaken = False
        self._others = OtherNodes(plan) if not one_node else None
        self._gathering = Gathering(plan) if not one_node else None
        self.stopping = Stopping(plan.stop, self.watch, nproc, self.torchrun_words)

    def run(
        self, plan_text: Callable[[], str], when_started: Callable[[Callable[[], int | None]], None] | None = None
    ) -> tuple[int, int | None]:
        """Start, follow, end: torchrun's exit code as Popen gives it, and the signal that ended it through dtk."""
        hostos.become_subreaper()
        child, pause = self._start(), _POLL
        try:
            if self._plan.topology.node == "0":
                write_plan(self._plan, plan_text())
            while child.poll() is None:
                self._act(child)
                busy = self._look() or not self.watch.all_run
                if self._gathering is not None and not self.watch.records:
                    self._gathering.look()
                if when_started is not None and len(self.watch.records) == self._plan.topology.nproc:
                    when_started(self.status.counted)
                    when_started = None
                if self.stopping.signalled is None:
                    self.stalls.poll()
                if lost := self.absent.poll():
                    self._go_on_without(lost, child)
                if self._fence.overtaken():
                    self.overtaken = True
                    break
                pause = _POLL if busy else min(pause * 1.2, _LONGEST_POLL)
                self.watch.wait(pause)
        finally:
            child.kill()
            child.wait()
            end_the_rest(self.status.helper, lambda: self.overtaken or self.interrupted())
        if not self.overtaken:
            self._look(final=True)
            self.stalls.hear()  # its ranks may have ended with those of another node before this one was told
        self.watch.close()
        return child.returncode, self.stopping.signalled

    def torchrun_words(self) -> str:
        """What torchrun wrote in this launch."""
        with open(launcher_log(self._plan), "rb") as file:
            file.seek(self._log_start)
            return file.read().decode(errors="replace")

    def stopped_early(self) -> str:
        """What says that a script that ended well left its training for the signal that dtk got; '' if nothing does."""
        if self.stopping.signalled in (None, signal.SIGINT):
            return ""
        records = self.watch.records.values()
        return stopped_early(self._plan.target, Path.cwd(), records, self.stopping.since_ns)

    def others_failed(self) -> bool:
        """Whether another node of this launch has ended with a failure."""
        return self._others is not None and self._others.failed(now=True)

    def interrupted(self) -> bool:
        """Whether a Ctrl-C has come that nothing has acted on."""
        return signal.SIGINT in self._received.pending

    def take_signals(self) -> None:
        """Signals are this object's from now on: one that comes when the end is being told must not change its code."""
        for signum in (*ENDING, *NOTICES):
            if signal.getsignal(signum) != signal.SIG_IGN or signum in NOTICES:  # nohup and a shell's `&` stay obeyed
                signal.signal(signum, self._received.handle)

    def _start(self) -> subprocess.Popen[bytes]:
        command, environ = self._command.argv, self._environ
        early = prestart.torchrun(command, self._plan.torchrun, environ, self._log.fileno(), NOTICES)
        if early is not None:
            return early
        parent = os.getpid()

        def in_child() -> None:
            hostos.die_with_parent()
            if os.getppid() != parent:
                os._exit(1)
            for signum in NOTICES:
                signal.signal(signum, signal.SIG_IGN)

        return subprocess.Popen(
            command,
            env=environ,
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
        while self._received.pending:
            self.stopping.take(self._received.pending.pop(0), child.pid)
        self.stopping.look(child.pid, self._to_be_ended)

    def _go_on_without(self, lost: list[str], child: subprocess.Popen[bytes]) -> None:
        """Have torchrun start the ranks again, if enough nodes are left: they wait for ranks that are gone."""
        what = f"{' and '.join(lost)} {'is' if len(lost) == 1 else 'are'} lost: no word for {self.absent.seconds:g} s"
        goes_on = not self.absent.is_over
        with contextlib.suppress(OSError):
            print(f"dtk: {what}; {_GOES_ON if goes_on else _ENDS}", file=sys.stderr, flush=True)
        if goes_on and self.stopping.signalled is None:
            self.watch.signal(signal.SIGKILL, child.pid)

    def _to_be_ended(self) -> bool:
        """Whether another node has failed or is lost, or this run hangs and is not to."""
        failed = self._others is not None and self._others.failed()
        return self.stalls.to_be_ended or self.absent.is_over or failed
