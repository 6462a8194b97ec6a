"""Asks ranks of this host for their stacks, and the processes that they have forked, and reads what they write."""

from __future__ import annotations

import linecache
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from dtk_launch import hostos, processes
from dtk_launch.diagnose.stacks import is_complete, is_likely_complete
from dtk_launch.rank_files import RankRecord

_PATIENCE = 1.0  # seconds for one dump; it takes some milliseconds
_GLANCE = 0.005
_ASLEEP = 0.1  # seconds for which a main thread is in no Python if it sleeps and leaves the gentle signal unanswered
_AT_WORK = 0.05  # seconds of CPU, likewise: Python answers after the step that it is in
_SETTLED = 0.15  # seconds for which a dump has not grown that does not end in a script: it is whole
_SAMPLES, _APART = 10, 0.017  # more looks at a rank at work; seconds between two, which fit no usual rhythm
_WORKERS = 16  # of a rank that are asked


@dataclass(frozen=True)
class Dump:
    """What a rank wrote, and its forked processes by pid; '' for one that did not answer."""

    main: str
    workers: Mapping[int, str]


def source_line(file: str, line: int) -> str:
    """The text of a line of code; '' where the file cannot be read."""
    return linecache.getline(file, line)


class _Asked:
    """A process that has been asked: gently, and at once only if it is seen to execute no Python."""

    def __init__(self, pid: int, signals: Mapping[str, int]) -> None:
        self._pid, self._signals = pid, signals
        self._asleep = 0.0
        self._size, self._grew = 0, time.monotonic()
        self._start = processes.main_thread(pid)
        self.at_once = False

    def gently(self) -> None:
        """Have it answer between two steps of the interpreter."""
        hostos.send_to_main_thread(self._pid, self._signals["gentle"])

    def has_answered(self, text: str) -> bool:
        """Whether what it has written so far is all."""
        now = time.monotonic()
        if len(text) != self._size:
            self._size, self._grew = len(text), now
        return is_complete(text) or (now - self._grew >= _SETTLED and is_likely_complete(text))

    def at_once_if_in_c(self, answered: Callable[[], bool]) -> None:
        """Have the main thread answer from within the signal, if it has slept or worked and not `answered` till now."""
        seen = processes.main_thread(self._pid)
        if self.at_once or seen is None or self._start is None:
            return
        self._asleep += _GLANCE if seen.state in "SD" else 0.0
        in_c = self._asleep >= _ASLEEP or seen.cpu - self._start.cpu >= _AT_WORK
        if in_c and not answered():
            self.at_once = True
            hostos.send_to_main_thread(self._pid, self._signals["signal"])


class Dumper:
    """Asks. A process that has not answered is not asked again before it has: its late answer would be another's."""

    def __init__(self, folder: Path) -> None:
        """`folder` is the ranks/ of the run directory."""
        self._folder = folder
        self._owing: dict[int, int] = {}
        self.in_python: set[int] = set()
        """Pids that answered the last dump between two steps of Python."""

    def dump(self, records: Iterable[RankRecord], everything: Mapping[int, processes.Seen]) -> dict[int, Dump]:
        """Rank -> its stacks. All ranks are asked at once, the processes of one after each other."""
        queues: dict[int, list[tuple[RankRecord, int]]] = {}
        self.in_python.clear()
        for record in records:
            pids = [record.pid, *(seen.pid for seen in processes.descendants(record.pid, everything))]
            queues[record.rank] = [(record, pid) for pid in pids if self.will_answer(record, pid)][: _WORKERS + 1]
        found: dict[int, dict[int, str]] = {rank: {} for rank in queues}
        while any(queues.values()):
            turn = [queue.pop(0) for queue in queues.values() if queue]
            for (record, pid), text in self._ask(turn):
                found[record.rank][pid] = text
        return {
            record.rank: Dump(answers.pop(record.pid, ""), answers)
            for record in records
            for answers in (found[record.rank],)
        }

    def again(self, records: Iterable[RankRecord]) -> dict[int, list[str]]:
        """Rank -> some more stacks of its own, each a moment after the other."""
        asked = [(record, record.pid) for record in records if self.will_answer(record, record.pid)]
        found: dict[int, list[str]] = {record.rank: [] for record, _ in asked}
        for _ in range(_SAMPLES if asked else 0):
            for (record, _), text in self._ask(asked):
                found[record.rank].append(text)
            time.sleep(_APART)
        return found

    def will_answer(self, record: RankRecord, pid: int) -> bool:
        """Whether it is safe to ask: a process without the handlers would die of the signals."""
        if record.stacks is None:
            return False
        if not all(processes.catches(pid, record.stacks[name]) for name in ("signal", "gentle")):
            return False
        return processes.has_open(pid, record.stacks["fd"], self._path(record))

    def _path(self, record: RankRecord) -> Path:
        return self._folder / f"{record.rank}.stacks"

    def _size(self, path: Path) -> int:
        try:
            return path.stat().st_size
        except OSError:
            return 0

    def _ask(self, turn: list[tuple[RankRecord, int]]) -> list[tuple[tuple[RankRecord, int], str]]:
        starts = {pid: self._owing.get(pid, self._size(self._path(record))) for record, pid in turn}
        asked = {pid: _Asked(pid, record.stacks or {}) for record, pid in turn}
        for _, pid in turn:
            if pid not in self._owing:
                self._owing[pid] = starts[pid]
                asked[pid].gently()
        answers: list[tuple[tuple[RankRecord, int], str]] = []
        deadline = time.monotonic() + _PATIENCE
        waiting = list(turn)
        while waiting and time.monotonic() < deadline:
            time.sleep(_GLANCE)
            for record, pid in list(waiting):
                text = self._read(self._path(record), starts[pid])
                if asked[pid].has_answered(text):
                    waiting.remove((record, pid))
                    self._owing.pop(pid, None)
                    answers.append(((record, pid), text))
                else:
                    asked[pid].at_once_if_in_c(partial(self._has_answered, record, starts[pid]))
        self.in_python |= {pid for record, pid in turn if (record, pid) not in waiting and not asked[pid].at_once}
        return [*answers, *((each, "") for each in waiting)]

    def _has_answered(self, record: RankRecord, start: int) -> bool:
        return is_complete(self._read(self._path(record), start))

    def _read(self, path: Path, offset: int) -> str:
        try:
            with open(path, "rb") as file:
                file.seek(offset)
                return file.read().decode(errors="replace")
        except OSError:
            return ""
