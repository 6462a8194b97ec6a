"""Ends what torchrun and its ranks left behind: DataLoader workers, programs that a script started."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable

from dtk_launch import hostos

_END_GRACE = 2.0  # seconds between SIGTERM and SIGKILL
_KILL_GRACE = 30.0  # seconds after which a process that SIGKILL does not end is left


def end_the_rest(keep: int | None, hurry: Callable[[], bool]) -> None:
    """End and reap all descendants of this process but `keep`. `hurry` ends the grace between SIGTERM and SIGKILL."""
    deadline = time.monotonic() + _END_GRACE
    told: set[int] = set()
    while rest := [pid for pid in hostos.descendants_of(os.getpid()) if pid != keep]:
        if time.monotonic() > deadline + _KILL_GRACE:
            print(_held(rest), file=sys.stderr)
            break
        late = time.monotonic() > deadline or hurry()
        for pid in rest:
            if late or pid not in told:
                told.add(pid)
                hostos.send(pid, signal.SIGKILL if late else signal.SIGTERM)
        _reap()
        time.sleep(0.01)
    _reap()


def _held(pids: list[int]) -> str:
    named = f"process {pids[0]}" if len(pids) == 1 else f"the processes {', '.join(map(str, pids))}"
    return (
        f"dtk: SIGKILL does not end {named}: the kernel waits there, as a rule for a disk, a network file system or a "
        "driver. What is held (GPU memory, ports) stays held until it does"
    )


def _reap() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
