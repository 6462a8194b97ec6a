"""Ctrl-C while dtk decides: exit code 130 and no traceback. While ranks run it is supervisor.py's."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn


@contextlib.contextmanager
def quiet_interrupt() -> Iterator[None]:
    """Leave by SystemExit(130) on SIGINT, where Python would raise KeyboardInterrupt (click makes that exit code 1)."""
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:  # nohup, and a shell's `&`, stay obeyed
        yield
        return
    signal.signal(signal.SIGINT, _leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _leave(signum: int, frame: FrameType | None) -> NoReturn:
    sys.exit(128 + signum)
