"""Read a file of which ranges can be fetched, with few requests: small reads are served from what was read ahead."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType

from dist_toolkit.storage.base import FileReader

_FIRST = 1 << 20  # bytes fetched where a read begins anew
_MOST = 8 << 20  # bytes of one request; what is read ahead grows to this while reads go on in order
_WINDOWS = 4  # places of the file that may be read in turns, by threads say


class RangeReader:
    """An open file. Threads may share it."""

    def __init__(self, name: str, size: int, fetch: Callable[[int, int], bytes]) -> None:
        """`fetch(begin, end)` gives exactly these bytes, and is called from any thread."""
        self.size = size
        self._name, self._fetch = name, fetch
        self._lock = threading.Lock()
        self._windows: list[tuple[int, bytes]] = []  # (begin, bytes), the last one used first

    def read_into(self, offset: int, view: memoryview) -> None:
        """Fill `view` from `offset`."""
        rest = view.cast("B")
        if offset + len(rest) > self.size:
            raise EOFError(f"{self._name} ends at byte {self.size}")
        if len(rest) < _MOST:
            with self._lock:
                begin, data = self._window(offset, offset + len(rest))
            rest[:] = memoryview(data)[offset - begin : offset - begin + len(rest)]
            return
        for start in range(0, len(rest), _MOST):
            piece = rest[start : start + _MOST]
            piece[:] = self._fetch(offset + start, offset + start + len(piece))

    def _window(self, begin: int, end: int) -> tuple[int, bytes]:
        """What holds these bytes, fetched if need be. Called with the lock."""
        length = _FIRST
        for window in self._windows:
            start, stop = window[0], window[0] + len(window[1])
            if start <= begin and end <= stop:
                self._use(window)
                return window
            if start <= begin <= stop + _FIRST:  # goes on, or skips a little
                length = min(2 * len(window[1]), _MOST)
                self._windows.remove(window)
                break
        until = min(max(end, begin + length), self.size)
        window = (begin, self._fetch(begin, until) if until > begin else b"")
        self._windows.insert(0, window)
        del self._windows[_WINDOWS:]
        return window

    def _use(self, window: tuple[int, bytes]) -> None:
        self._windows.remove(window)
        self._windows.insert(0, window)

    def __enter__(self) -> FileReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._windows = []
