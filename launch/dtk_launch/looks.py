"""One look at the ranks of a run that makes no step: what /proc and their stacks say."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from dtk_launch import processes
from dtk_launch.diagnose import hang
from dtk_launch.diagnose.endings import GONE, place_in, threads_of
from dtk_launch.diagnose.stacks import main_stack
from dtk_launch.diagnose.waits import STOPPED, WAITS
from dtk_launch.dumps import Dump, Dumper, source_line
from dtk_launch.rank_files import RankRecord
from dtk_launch.vitals import Page


class Looker:
    """Reads the heartbeats of this node's ranks, and looks at their processes when it is asked to."""

    def __init__(self, folder: Path, vitals: int | None) -> None:
        """`folder` has the ranks' files; `vitals`: descriptor of their pages."""
        self.dumps: dict[int, Dump] = {}
        """Rank -> its stacks at the last look."""
        self._dumper, self._vitals = Dumper(folder), vitals
        self._pages: dict[int, Page] = {}
        self._asked_ns: dict[int, int] = {}

    def beat(self, record: RankRecord) -> tuple[int, int]:
        """(steps, time.monotonic_ns() of the last); zeros before the first, and where nothing tells."""
        if record.vitals is None or self._vitals is None:
            return 0, 0
        if record.pid not in self._pages:
            self._pages[record.pid] = Page(self._vitals, record.vitals)
        return self._pages[record.pid].heartbeat()

    def forget(self) -> None:
        """The ranks have moved: the next look has none before it."""
        self._asked_ns.clear()

    def look(self, live: Mapping[int, RankRecord], more: bool) -> hang.Look:
        """Read /proc and ask for the stacks; `more`: for some of those that wait for nobody, too."""
        everything = processes.look_at_all()
        trees = {rank: [s.pid for s in processes.descendants(r.pid, everything)] for rank, r in live.items()}
        before = {rank: _stored([record.pid, *trees[rank]]) for rank, record in live.items()}
        native = {rank: self._in_one_call(record) for rank, record in live.items()}
        self._asked_ns = {record.pid: time.monotonic_ns() for record in live.values()}
        self.dumps = self._dumper.dump(list(live.values()), everything)
        for pid in self._dumper.in_python:
            self._asked_ns.pop(pid, None)
        again = self._samples(live) if more else {}
        looks = {}
        for rank, record in live.items():
            dump, seen = self.dumps[rank], everything.get(record.pid)
            if seen is None:
                continue
            main = _process(seen, dump.main, native[rank], again.get(rank, ()))
            if main.place is None and record.exit is not None:
                main = replace(main, place=GONE)
            looks[rank] = hang.RankLook(
                main=main,
                workers={pid: _process(everything[pid], text) for pid, text in dump.workers.items()},
                programs={pid: everything[pid].cpu for pid in trees[rank] if pid not in dump.workers},
                bytes_before=before[rank],
                bytes_after=_stored([record.pid, *trees[rank]]),
            )
        return hang.Look(time.monotonic(), looks)

    def _samples(self, live: Mapping[int, RankRecord]) -> dict[int, list[str]]:
        """More stacks of the ranks that wait for nobody."""
        places = {rank: place_in(dump.main, source_line) for rank, dump in self.dumps.items()}
        at_work = [rank for rank, place in places.items() if place is not None and place.kind not in WAITS]
        return self._dumper.again(live[rank] for rank in at_work)

    def _in_one_call(self, record: RankRecord) -> bool:
        """Whether the main thread has executed no Python since the last look, and waits for no accelerator."""
        page, asked_ns = self._pages.get(record.pid), self._asked_ns.get(record.pid)
        if page is None or asked_ns is None or record.stacks is None:
            return False
        return page.turned_at() < asked_ns and not processes.drives_device(record.pid)


def _process(seen: processes.Seen, dump: str, native: bool = False, again: Iterable[str] = ()) -> hang.Process:
    if seen.state in "Tt":
        return hang.Process(STOPPED, seen.cpu)
    place, stack = place_in(dump, source_line), main_stack(dump)
    later = tuple(_process(seen, text) for text in again)
    threads = threads_of(dump, source_line)
    return hang.Process(place, seen.cpu, seen.state == "D", native, stack, later, threads)


def _stored(pids: list[int]) -> int:
    return sum(processes.stored_bytes(pid) for pid in pids)
