"""Asks ranks of this host for their stacks, and the processes that they have forked, and reads what they write."""

from __future__ import annotations

import linecache
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from dtk_launch import hostos, processes
from dtk_launch.diagnose.stacks import is_complete
from dtk_launch.ranks import RankRecord

_PATIENCE = 0.5  # seconds for one dump; it takes some milliseconds
_WORKERS = 16  # of a rank that are asked


@dataclass(frozen=True)
class Dump:
    """What a rank wrote, and its forked processes by pid; '' for one that did not answer."""

    main: str
    workers: Mapping[int, str]


def source_line(file: str, line: int) -> str:
    """The text of a line of code; '' where the file cannot be read."""
    return linecache.getline(file, line)


class Dumper:
    """Asks. A process that has not answered is not asked again before it has: its late answer would be another's."""

    def __init__(self, folder: Path) -> None:
        """`folder` is the ranks/ of the run directory."""
        self._folder = folder
        self._owing: dict[int, int] = {}

    def dump(self, records: Iterable[RankRecord], everything: Mapping[int, processes.Seen]) -> dict[int, Dump]:
        """Rank -> its stacks. All ranks are asked at once, the processes of one after each other."""
        queues: dict[int, list[tuple[RankRecord, int]]] = {}
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

    def will_answer(self, record: RankRecord, pid: int) -> bool:
        """Whether it is safe to ask: a process without the handler would die of the signal."""
        if record.stacks is None or not processes.catches(pid, record.stacks["signal"]):
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
        for record, pid in turn:
            if pid not in self._owing and record.stacks is not None:
                self._owing[pid] = starts[pid]
                hostos.send(pid, record.stacks["signal"])
        answers: list[tuple[tuple[RankRecord, int], str]] = []
        deadline = time.monotonic() + _PATIENCE
        waiting = list(turn)
        while waiting and time.monotonic() < deadline:
            time.sleep(0.005)
            for record, pid in list(waiting):
                text = self._read(self._path(record), starts[pid])
                if is_complete(text):
                    waiting.remove((record, pid))
                    self._owing.pop(pid, None)
                    answers.append(((record, pid), text))
        return [*answers, *((asked, "") for asked in waiting)]

    def _read(self, path: Path, offset: int) -> str:
        try:
            with open(path, "rb") as file:
                file.seek(offset)
                return file.read().decode(errors="replace")
        except OSError:
            return ""
