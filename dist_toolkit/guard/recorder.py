"""What every collective pays for the guard: one record in a ring, in memory, without a lock or a system call."""

from __future__ import annotations

import sys
import threading
import time
import zlib
from types import FrameType, TracebackType
from typing import NamedTuple, Protocol

RING = 256
"""Records that a rank remembers: a power of two."""

MARK_EVERY = 1024
"""Records between two chain hashes that are kept for longer than the ring."""

_PASSED_OVER = ("dist_toolkit", "torch", "contextlib", "deepspeed")
_PASSED_OVER_BUT = ("dist_toolkit.testing",)


class Record(NamedTuple):
    """One entry into a collective operation."""

    number: int
    """Counts from 1; the same operation has the same number on every rank."""
    operation: str
    file: str
    line: int
    step: int
    chain: int
    """A hash of this operation and all before it: equal on two ranks if they did the same ones."""


class Interrupts(Protocol):
    """Who knows whether the ranks are proven to have gone apart."""

    def check(self) -> None:
        """Raise DesyncError if it is proven. Called before each record while `alarmed`."""
        ...

    def explain(self, error: BaseException) -> None:
        """Raise DesyncError from `error`, which ended a collective, if the ranks' records prove one."""
        ...


class Watch:
    """A context manager that records one named operation. Made once a name, used again each time.

    Only the outermost counts: what a watched operation calls is part of it. Other threads than the one that made the
    recorder are not watched.
    """

    __slots__ = ("_name", "_recorder", "_signature")

    def __init__(self, recorder: Recorder, name: str) -> None:
        self._recorder, self._name = recorder, name
        self._signature = zlib.crc32(name.encode())

    def __enter__(self) -> None:
        recorder = self._recorder
        if threading.get_ident() != recorder.owner:
            return
        recorder.depth += 1
        if recorder.depth > 1:
            return
        if recorder.alarmed and recorder.interrupts is not None:
            recorder.depth -= 1
            recorder.interrupts.check()
            recorder.depth += 1
        recorder.add(self._name, self._signature, sys._getframe(1))

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        recorder = self._recorder
        if threading.get_ident() != recorder.owner:
            return
        recorder.depth -= 1
        if recorder.depth:
            return
        if value is not None and recorder.interrupts is not None:
            recorder.interrupts.explain(value)
        recorder.inside_since = 0.0


class Pause:
    """A context manager in whose body nothing is recorded, and nobody is said to wait. Re-entrant."""

    __slots__ = ("_recorder", "_since")

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._since: list[float] = []

    def __enter__(self) -> None:
        recorder = self._recorder
        if threading.get_ident() == recorder.owner:
            self._since.append(recorder.inside_since)
            recorder.inside_since = 0.0
            recorder.depth += 1

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        recorder = self._recorder
        if threading.get_ident() == recorder.owner:
            recorder.depth -= 1
            recorder.inside_since = self._since.pop() and time.monotonic()


class Recorder:
    """The records of this rank. Written by the thread that made it; read by the guard's thread at any moment.

    Attributes:
        step: the training step, for the report; whoever counts steps sets it.
        number: how many operations this rank has entered.
        inside_since: time.monotonic() at the entry into the operation under way; 0.0 outside of one.
        last_at: time.monotonic() at the last entry.
        alarmed: whether to ask `interrupts` before each record.
    """

    def __init__(self) -> None:
        self.step = 0
        self.number = 0
        self.chain = 0
        self.depth = 0
        self.inside_since = 0.0
        self.last_at = time.monotonic()
        self.owner = threading.get_ident()
        self.alarmed = False
        self.interrupts: Interrupts | None = None
        self.marks: dict[int, int] = {}
        self._ring: list[tuple[int, str, str, int, int, int] | None] = [None] * RING  # a Record each, made when read
        self._watches: dict[str, Watch] = {}
        self._pause = Pause(self)

    def watched(self, name: str) -> Watch:
        """The context manager that records `name`."""
        watch = self._watches.get(name)
        if watch is None:
            watch = self._watches[name] = Watch(self, name)
        return watch

    def unwatched(self) -> Pause:
        """The context manager that suspends the guard."""
        return self._pause

    def add(self, name: str, signature: int, frame: FrameType) -> None:
        """Append a record; its place is the nearest frame outside this package and torch."""
        caller = _nearest_user_frame(frame)
        number = self.number + 1
        self.chain = chain = (self.chain * 1000003 ^ signature) & 0xFFFFFFFFFFFF
        place = number & (RING - 1)
        self._ring[place] = (number, name, caller.f_code.co_filename, caller.f_lineno, self.step, chain)
        if not number & (MARK_EVERY - 1):
            self.marks = {**dict([*self.marks.items()][-3:]), number: chain}
        self.inside_since = self.last_at = time.monotonic()
        self.number = number

    def signature(self) -> int:
        """The chain hash, to send along: equal on all ranks that did the same. 0 in another thread than the owner's."""
        return self.chain if threading.get_ident() == self.owner else 0

    def records(self) -> list[Record]:
        """The last records, oldest first; at most RING, all consecutive."""
        found = sorted(Record(*record) for record in [*self._ring] if record is not None)
        last = len(found) - 1
        return [record for place, record in enumerate(found) if record.number == found[-1].number - (last - place)]


_outside: dict[str, bool] = {}


def _nearest_user_frame(frame: FrameType) -> FrameType:
    found: FrameType | None = frame
    while found is not None:
        name = found.f_globals.get("__name__", "")
        outside = _outside.get(name)
        if outside is None:
            outside = _outside[name] = is_outside(name)
        if outside:
            return found
        found = found.f_back
    return frame


def is_outside(module: str) -> bool:
    """Whether a module is the user's: neither of this package nor of torch and what it stands on."""
    return module in _PASSED_OVER_BUT or module.partition(".")[0] not in _PASSED_OVER
