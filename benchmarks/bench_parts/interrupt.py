"""Ctrl-C and SIGTERM as one exception, so that every `finally` on the way out ends what it started."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupted(BaseException):
    """A signal asked this process to end."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum
        self.name = "Ctrl-C" if signum == signal.SIGINT else signal.Signals(signum).name


_ONE = 1.0
"""Seconds within which two signals are one: SLURM sends two, and a terminal that is closed SIGHUP with another."""


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise Interrupted in the body at SIGINT, SIGTERM or SIGHUP; one that was ignored before stays ignored."""
    last = -_ONE

    def interrupt(signum: int, frame: FrameType | None) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _ONE:
            last = now
            raise Interrupted(signum)

    before = {}
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(signum) != signal.SIG_IGN:
            before[signum] = signal.signal(signum, interrupt)
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
