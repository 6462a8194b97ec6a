"""The moment at which each rank of this node died, learned from the lock that it holds for life (vitals.py)."""

from __future__ import annotations

import threading

from dtk_launch.vitals import Page
from dtk_launch.waking import Waking


class Deaths:
    """Waits for the ends of processes, a sleeping thread each."""

    def __init__(self, descriptor: int | None) -> None:
        """`descriptor` is that of the ranks' pages, or None where there are none."""
        self._descriptor = descriptor
        self._times: dict[int, int] = {}
        self._pages: dict[int, Page] = {}
        self._threads: dict[int, threading.Thread] = {}

    def watch(self, pid: int, offset: int | None) -> None:
        """Wait for the end of the process whose page is at `offset`. Without a page nothing will be known."""
        if offset is None or self._descriptor is None:
            return
        try:
            page = Page(self._descriptor, offset)
        except (OSError, ValueError):
            return
        self._pages[pid] = page
        thread = threading.Thread(target=self._wait, args=(pid, page), daemon=True)
        self._threads[pid] = thread
        thread.start()

    def _wait(self, pid: int, page: Page) -> None:
        waking = Waking()
        waking.going_to_sleep()
        if page.wait_for_death():
            self._times[pid] = waking.moment_ns()
        waking.close()

    def failed_at(self, pid: int) -> int | None:
        """time.monotonic_ns() at which an exception left the process's script; None if nothing says so."""
        page = self._pages.get(pid)
        return None if page is None else page.failed_at()

    def time_of(self, pid: int) -> int | None:
        """time.monotonic_ns() of the death of a process that is known to be dead; None if nothing tells."""
        thread = self._threads.get(pid)
        if thread is not None:
            thread.join(0.2)  # it was woken before the pidfd; it may not have had a core yet
        return self._times.get(pid)
