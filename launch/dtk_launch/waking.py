"""When what a sleeping thread waits for happened, though on a busy machine the thread gets a core some time later."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_SWITCH = 2e-4  # seconds for which a thread that computes keeps a woken one from executing Python; 5e-3 by default


class Waking:
    """Of the thread that makes it: the kernel counts how long it has waited for a core since it was woken.

    Source: Documentation/scheduler/sched-stats.rst, on /proc/<pid>/schedstat: "time spent waiting to run (in ns)".
    Where there is no such file, nothing is corrected.
    """

    def __init__(self) -> None:
        """Also asks for the highest priority, which only root gets."""
        thread = threading.get_native_id()
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, thread, -20)
        self._file: int | None = None
        with suppress(OSError):
            self._file = os.open(f"/proc/self/task/{thread}/schedstat", os.O_RDONLY | os.O_CLOEXEC)
        self._before = 0

    def going_to_sleep(self) -> None:
        """To be called just before the thread begins to wait."""
        self._before = self._waited_ns()

    def moment_ns(self) -> int:
        """time.monotonic_ns() at which the thread was woken; to be asked for as soon as it runs."""
        now = time.monotonic_ns()
        return now - (self._waited_ns() - self._before)

    def close(self) -> None:
        """Let go of the kernel's count."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _waited_ns(self) -> int:
        if self._file is None:
            return 0
        return int(os.pread(self._file, 100, 0).split()[1])


@contextmanager
def awake_at_once() -> Iterator[None]:
    """A body in which a thread that is woken soon executes Python, whatever the other threads of this process do."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)
