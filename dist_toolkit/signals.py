"""Requests to stop: what SIGTERM and SIGUSR1 do in a rank, and how the ranks agree on the step at which they act."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, NamedTuple

import torch

from dist_toolkit.process_group import Group, Pending

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
EARLY = "DTK_STOP"
"""Set by the launcher's bootstrap in a rank that got SIGUSR1 before it had come to `init()`."""


class Signals:
    """What SIGTERM and SIGUSR1 do in this process; docs/decisions/0007 says why.

    While somebody listens, they are noted for whoever polls. Otherwise SIGUSR1 is noted, and SIGTERM ends the process,
    as it would without this object; both leave by `leave` where that is set and says that nothing would be lost.
    A handler that the program had set before is left in charge of a signal that nobody listens for.

    Attributes:
        seen: a signal has come.
        polled: the script asks for itself (`rt.stop_requested`), and acts on the answer.
        leave: the exception to leave with when nobody listens; None: something would be lost.
    """

    def __init__(self, env: Mapping[str, str] | None = None) -> None:
        self.seen = EARLY in (os.environ if env is None else env)
        self.polled = False
        self.leave: Callable[[], BaseException | None] | None = None
        self._listeners = 0
        self._previous: dict[int, Any] = {}

    @property
    def is_listening(self) -> bool:
        """Whether signals are only noted."""
        return self._listeners > 0

    def handle(self, *numbers: int) -> None:
        """Take charge of these signals. Does nothing outside the main thread, as only that may.

        A handler in C (`faulthandler.register`'s) stays: Python could neither call it nor put it back.
        """
        if threading.current_thread() is not threading.main_thread():
            return
        for number in numbers:
            if _is_handled_in_c(number):
                continue
            before = signal.signal(number, self._on_signal)
            if before != self._on_signal:
                self._previous[number] = before

    def listen(self) -> None:
        """Until `unlisten`, only note signals."""
        self._listeners += 1
        self.handle(*STOP_SIGNALS)

    def unlisten(self) -> None:
        """End what `listen` began."""
        self._listeners -= 1

    def restore(self) -> None:
        """Give the signals back to whom they were."""
        for number, handler in self._previous.items():
            if signal.getsignal(number) == self._on_signal:
                signal.signal(number, handler)
        self._previous.clear()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.seen = True
        if self._listeners:
            return
        previous = self._previous.get(number)
        if callable(previous) and not hasattr(previous, "dtk_bootstrap"):
            previous(number, frame)
            return
        error = None if self.leave is None else self.leave()
        if error is not None:
            raise error
        if number == signal.SIGTERM and previous is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)


def _is_handled_in_c(number: int) -> bool:
    """Whether the process has a handler for it that Python does not know of."""
    known = signal.getsignal(number)
    if callable(known):
        return False
    with suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        caught = next(int(line.split()[1], 16) for line in lines if line.startswith("SigCgt:"))
        return bool(caught >> (number - 1) & 1)
    return known is None


class Asked(NamedTuple):
    """What the ranks have agreed on."""

    stop: bool
    """A signal has come to some rank."""
    trouble: bool
    """Some rank has said so."""


class StopRequest:
    """While entered, SIGTERM and SIGUSR1 ask for a stop instead of ending the process.

    One rank that has seen a signal is enough: the flags are reduced over the ranks in the background of a step and read
    at the next step's end, so all ranks get the same answer at the same step, without waiting for each other.

    Args:
        signals: whose signals; None: handled while this object is entered, and given back then.
    """

    def __init__(self, group: Group, signals: Signals | None = None) -> None:
        self._group = group
        self._own = signals is None
        self._signals = Signals({}) if signals is None else signals
        self._pending: Pending | None = None

    def poll(self, trouble: bool = False) -> Asked:
        """Whether all ranks are to stop after this step. Collective: call it at the same point of every step.

        Args:
            trouble: something else that one rank knows and all are to hear of in the same way.
        """
        if self._group.world.world_size == 1:
            return Asked(self._signals.seen, trouble)
        with self._group.watched("agreement to stop"):
            agreed = [0, 0] if self._pending is None else self._pending.wait().tolist()
            flags = torch.tensor([self._signals.seen, trouble], dtype=torch.int32)
            self._pending = self._group.start_all_reduce(flags, "max")
        return Asked(*map(bool, agreed))

    def asked_by_now(self) -> bool:
        """Whether a signal has come to some rank before this call, and the script leaves it to this object to ask.

        Collective; waits for the other ranks.
        """
        if self._signals.polled:
            return False
        if self._group.world.world_size == 1:
            return self._signals.seen
        with self._group.watched("agreement to stop"):
            return bool(self._group.all_reduce(torch.tensor([self._signals.seen], dtype=torch.int32), "max").item())

    @contextmanager
    def noting(self) -> Iterator[None]:
        """In the body, signals end nobody; nothing is asked."""
        self._signals.listen()
        try:
            yield
        finally:
            self._signals.unlisten()
            self._give_back()

    def __enter__(self) -> StopRequest:
        self._signals.listen()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._signals.unlisten()
        self._give_back()
        if self._pending is not None and kind is None:
            self._pending.wait()
        self._pending = None

    def _give_back(self) -> None:
        if self._own and not self._signals.is_listening:
            self._signals.restore()
