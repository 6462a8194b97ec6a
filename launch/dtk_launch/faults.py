"""What Python says in a rank on a fatal signal, and the moment at which it begins to: a pipe for each rank.

The process itself may live on for seconds: the kernel writes its core dump before anything of it ends.
"""

from __future__ import annotations

import os
import select
import threading
import time
from contextlib import suppress
from dataclasses import dataclass

from dtk_launch.vitals import path_of
from dtk_launch.waking import Waking

_START = b"Fatal Python error: "
_SIGNALS = {
    "Segmentation fault": "SIGSEGV",
    "Aborted": "SIGABRT",
    "Bus error": "SIGBUS",
    "Illegal instruction": "SIGILL",
    "Floating-point exception": "SIGFPE",
    "Floating point exception": "SIGFPE",  # before Python 3.14
}
"""What faulthandler calls each signal that it knows."""
_MOST = 1 << 20  # bytes that are kept of a rank; a dump is at most 100 threads of 100 lines


@dataclass(frozen=True)
class Fault:
    """What Python wrote on a fatal signal, and when it began: of Faults on the monotonic clock, else Unix time."""

    text: str
    time_ns: int

    @property
    def signal(self) -> str | None:
        """The signal by its name; None for an error of the interpreter's own."""
        words = self.text.removeprefix(_START.decode()).partition("\n")[0]
        return _SIGNALS.get(words)


class Faults:
    """Reads the pipes of `nproc` ranks, a sleeping thread each, until it is closed."""

    def __init__(self, nproc: int) -> None:
        pipes = [os.pipe() for _ in range(nproc)]
        self.paths = ",".join(path_of(written) for _, written in pipes)
        """What the bootstrap opens, by local rank (docs/wire.md)."""
        self._written = [written for _, written in pipes]
        self._said = {read: bytearray() for read, _ in pipes}
        self._moments: dict[int, list[tuple[int, int]]] = {read: [] for read, _ in pipes}
        self._lock = threading.Lock()
        for read in self._said:
            os.set_blocking(read, False)
        self._ended, self._end = os.pipe()
        self._closed = False
        self._threads = [threading.Thread(target=self._listen, args=(read,), daemon=True) for read in self._said]
        for thread in self._threads:
            thread.start()

    def of(self, local_rank: int, pid: int) -> Fault | None:
        """The last of what this process has said, after a close too; None if it has said nothing."""
        read = list(self._said)[local_rank]
        with self._lock:
            if not self._closed:
                self._read(read, time.monotonic_ns())
            said, moments = bytes(self._said[read]), list(self._moments[read])
        start, end = _part_of(said, pid)
        start = said.rfind(_START, start, end)
        if start < 0:
            return None
        moment = max(moment for offset, moment in moments if offset <= start)
        return Fault(said[start:end].decode(errors="replace"), moment)

    def close(self) -> None:
        """Read what is there and let go of the pipes."""
        if self._closed:
            return
        os.close(self._end)
        for thread in self._threads:
            thread.join()
        self._closed = True
        for read in self._said:
            self._read(read, time.monotonic_ns())
        for descriptor in (self._ended, *self._said, *self._written):
            os.close(descriptor)

    def _listen(self, read: int) -> None:
        waking = Waking()
        poller = select.poll()
        for descriptor in (self._ended, read):
            poller.register(descriptor, select.POLLIN)
        waking.going_to_sleep()
        while all(descriptor != self._ended for descriptor, _ in poller.poll()):
            moment = waking.moment_ns()
            with self._lock:
                self._read(read, moment)
            waking.going_to_sleep()
        waking.close()

    def _read(self, read: int, moment_ns: int) -> None:
        said = self._said[read]
        with suppress(BlockingIOError):
            while chunk := os.read(read, 1 << 16):
                if len(said) < _MOST:  # what is more is read, so that nobody blocks, and dropped
                    self._moments[read].append((len(said), moment_ns))
                    said += chunk


def _part_of(said: bytes, pid: int) -> tuple[int, int]:
    """Start and end of what a process has said: behind its header, up to the next one's."""
    header = b"\0%d\n" % pid
    start = said.rfind(header)
    if start < 0:
        return len(said), len(said)
    start += len(header)
    end = said.find(b"\0", start)
    return start, len(said) if end < 0 else end
