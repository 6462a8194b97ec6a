"""The guard's thread: asks all ranks when this one waits long, judges their answers, and delivers the verdict."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import time
from collections.abc import Collection
from typing import NoReturn

import torch.distributed as dist

from dist_toolkit.errors import DesyncError
from dist_toolkit.guard.recorder import Recorder
from dist_toolkit.guard.report import ENDED_BADLY, ENDED_WELL, Report, take_report
from dist_toolkit.guard.sockets import Connection, shut_down
from dist_toolkit.guard.store import Board
from dist_toolkit.guard.verdict import Verdict, judge, suspicion

_LOG = logging.getLogger("dist_toolkit")

_TICK = 0.5
_STALL = 2.0
"""Seconds inside one operation after which the others are asked."""
_QUIET = 10.0
"""Seconds without an operation after which they are asked where operations run on a GPU, unseen by this thread."""
_PATROL = 30.0
"""Seconds between two questions that rank 0 asks without a reason."""
_PATIENCE = 2.0
"""Seconds that an asker waits for the answers of all."""
_PATIENCE_FOR_THE_GONE = 0.25
"""The same where a peer has closed its connection: what it had to say, it has said before."""
_GRACE = 5.0
"""Seconds that the main thread has to raise a verdict before its process is ended."""
_LINGER = 3.0
"""Seconds that the process which holds the store stays for the others' last questions."""
_FIRST_WARNING = 10.0


class Guard:
    """One rank's guard. `close` ends its thread.

    Args:
        connections: those of the groups that the watched operations use; shut down to wake who waits in them.
        on_gpu: whether operations go on after the call that started them.
        kept_store: the store, where it would end with this process.

    Attributes:
        verdict: the proof that the ranks went apart, once there is one.
    """

    def __init__(
        self, recorder: Recorder, board: Board, rank: int, world_size: int, connections: Collection[Connection],
        *, on_gpu: bool, kept_store: object = None,
    ) -> None:  # fmt: skip
        self.verdict: Verdict | None = None
        self._recorder, self._board = recorder, board
        self._rank, self._world_size = rank, world_size
        self._connections, self._on_gpu, self._kept_store = connections, on_gpu, kept_store
        self._answered = 0
        self._last_question = time.monotonic()
        self._open: tuple[int, float] | None = None
        self._next_warning = _FIRST_WARNING
        self._last_words: dict[int, Report] | None = None
        self._raised = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="dtk-desync-guard", daemon=True)
        recorder.interrupts = self
        self._thread.start()

    def check(self) -> None:
        """Raise DesyncError if it is proven."""
        if self.verdict is not None:
            self._raise(self.verdict, None)

    def explain(self, error: BaseException) -> None:
        """Raise DesyncError from `error`, which ended a collective, if the ranks' records prove one; seconds."""
        if isinstance(error, DesyncError):
            self._raised.set()
        elif self.verdict is not None and isinstance(error, Exception):
            self._raise(self.verdict, error)
        elif _is_of_the_transport(error):
            patience = _PATIENCE_FOR_THE_GONE if "Connection " in str(error) else _PATIENCE
            if (verdict := self._inquire(patience)) is not None:
                self._raise(verdict, error)

    def diverged(self, what: str) -> NoReturn:
        """Raise DesyncError: the header of a message says that its ranks are in different operations."""
        verdict = self._inquire(_PATIENCE)
        if verdict is None:
            verdict = Verdict(f"the header of {what} says so", (), ())
        self._raise(verdict, None)

    def close(self, failed: bool) -> None:
        """End the thread, and tell the others that this rank leaves. Call it before the process group ends."""
        self._recorder.interrupts = None
        self._stop.set()
        self._thread.join(_LINGER)
        if self._last_words is not None:
            return
        with contextlib.suppress(RuntimeError):
            how = ENDED_BADLY if failed else ENDED_WELL
            self._board.publish(take_report(self._recorder, self._rank, self._answered, how))
            self._board.leave()

    def linger(self) -> None:
        """Where the store ends with this process, wait until the others know. Call it after the process group ended."""
        deadline = time.monotonic() + _LINGER
        with contextlib.suppress(RuntimeError):
            if self._kept_store is not None and self._board.left() < self._world_size:
                self._board.end()
                while self._board.left() < self._world_size and time.monotonic() < deadline:
                    time.sleep(0.02)
        self._kept_store = None

    def _run(self) -> None:
        with contextlib.suppress(RuntimeError):  # the store is gone: so is the run, or this guard's part in it
            while self.verdict is None and self._last_words is None and not self._stop.wait(_TICK):
                self._tick(time.monotonic())
        if self.verdict is not None:
            self._deliver(self.verdict)

    def _tick(self, now: float) -> None:
        question = self._board.question()
        if question != self._answered:
            self._answer(question)
            self._last_question = now
            self.verdict = self._board.verdict()
            if self.verdict is None and self._board.is_over():
                self._part()
        elif self._open is not None:
            self._judge_answers(*self._open, now)
        elif self._due(now):
            self._open = (self._ask(), now)
            self._last_question = now

    def _due(self, now: float) -> bool:
        since = self._recorder.inside_since
        waiting = now - since if since else 0.0
        silent = now - self._last_question
        if waiting > _STALL:
            return silent > min(5.0, max(1.0, waiting / 4))
        if self._on_gpu and now - self._recorder.last_at > _QUIET:
            return silent > 5.0
        return self._rank == 0 and silent > _PATROL

    def _ask(self) -> int:
        question = self._board.ask()
        self._answer(question)
        return question

    def _answer(self, question: int) -> None:
        self._board.publish(take_report(self._recorder, self._rank, question))
        self._answered = question

    def _part(self) -> None:
        """The store is about to go: keep what the others said last, and let it go."""
        self._last_words = self._board.read_all(self._world_size)
        self.verdict = judge(self._last_words)
        self._board.leave()

    def _judge_answers(self, question: int, asked_at: float, now: float) -> None:
        reports = self._board.read_all(self._world_size)
        if not self._complete(reports, question) and now - asked_at < _PATIENCE:
            return
        self._open = None
        self.verdict = self._convict(reports)
        if self.verdict is None:
            self._warn(reports)

    def _convict(self, reports: dict[int, Report]) -> Verdict | None:
        found = judge(reports)
        if found is None:
            return None
        found = self._board.convict(found)
        self._answered = self._board.ask()  # so that all ranks look
        return found

    def _complete(self, reports: dict[int, Report], question: int) -> bool:
        fresh = [report for report in reports.values() if report.ended or report.question >= question]
        return len(fresh) == self._world_size

    def _warn(self, reports: dict[int, Report]) -> None:
        longest = max((report.waiting for report in reports.values()), default=0.0)
        if longest < _FIRST_WARNING:
            self._next_warning = _FIRST_WARNING
        elif longest >= self._next_warning and self._rank == min(rank for rank, r in reports.items() if r.waiting):
            words = suspicion(reports, self._world_size)
            if words is not None:
                _LOG.warning("%s", words)
                self._next_warning = 2 * longest

    def _inquire(self, patience: float) -> Verdict | None:
        """From the main thread: ask, and wait for the answers. None if they prove nothing, or the store is gone."""
        with contextlib.suppress(RuntimeError):
            if self._last_words is None:
                return self._ask_and_wait(patience)
        self._thread.join(_PATIENCE)  # it may just have read the last words
        if self.verdict is None and self._last_words is not None:
            mine = take_report(self._recorder, self._rank, self._answered)
            return judge({**self._last_words, self._rank: mine})
        return self.verdict

    def _ask_and_wait(self, patience: float) -> Verdict | None:
        question = self._board.ask()
        self._board.publish(take_report(self._recorder, self._rank, question))
        deadline = time.monotonic() + patience
        while (verdict := self._board.verdict()) is None:
            reports = self._board.read_all(self._world_size)
            complete = self._complete(reports, question)
            if (verdict := self._convict(reports)) is not None or complete or time.monotonic() > deadline:
                return verdict
            time.sleep(0.05)
        return verdict

    def _raise(self, verdict: Verdict, cause: BaseException | None) -> NoReturn:
        self.verdict = verdict
        self._recorder.alarmed = True
        self._raised.set()
        raise verdict.error() from cause

    def _deliver(self, verdict: Verdict) -> None:
        """Wake the main thread; where it cannot be woken, end the process. In the main thread's own code: wait."""
        self._recorder.alarmed = True
        shut_down(self._connections)
        deadline = time.monotonic() + _GRACE
        told = False
        while not self._raised.wait(_TICK / 5) and not self._stop.is_set():
            if time.monotonic() < deadline:
                continue
            if not told:
                told = True
                sys.stderr.write(f"[rank {self._rank}] {verdict.error()}\n")
                sys.stderr.flush()
            if self._recorder.inside_since or self._on_gpu:
                os._exit(DesyncError.EXIT_CODE)


def _is_of_the_transport(error: BaseException) -> bool:
    words = str(error)
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and any(word in words for word in ("gloo", "NCCL", "Connection ", "Timed out"))
    )
