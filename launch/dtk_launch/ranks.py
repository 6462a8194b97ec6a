"""The ranks of one launch, followed while they run: what they record, and when their processes ended."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from dtk_launch import hostos, processes
from dtk_launch.deaths import Deaths
from dtk_launch.faults import Fault, Faults
from dtk_launch.rank_files import RankRecord
from dtk_launch.vitals import offset_of, words_in

_LONGEST_END_NS = 60_000_000_000  # between the death of a process and the end of its memory


class RankWatch:
    """Follows the records that the ranks of this supervisor write. `nproc` of them are expected on this node."""

    def __init__(
        self,
        folder: Path,
        supervisor: str,
        nproc: int,
        one_node: bool,
        vitals: int | None = None,
        faults: Faults | None = None,
        on_start: Callable[[RankRecord], None] | None = None,
    ) -> None:
        """`vitals`: descriptor of the ranks' pages; `faults`: their pipes; `on_start` gets each new record."""
        self.records: dict[int, RankRecord] = {}
        self.earlier: list[dict[int, RankRecord]] = []
        """The last records of the ranks of each attempt before this one (--max-restarts)."""
        self.ended: dict[int, int] = {}
        """Pid -> Unix time (ns) at which the process ended."""
        self.codes: dict[int, int] = {}
        """Pid -> exit code as Popen gives it, where it was seen before torchrun took it away."""
        self._folder, self._supervisor, self._nproc, self._on_start = folder, supervisor, nproc, on_start
        self._known = [folder / f"{rank}.json" for rank in range(nproc)] if one_node else None
        self._since_ns = time.time_ns()
        self._clock_ns = time.time_ns() - time.monotonic_ns()
        self._faults = faults
        self._vitals, self._deaths = vitals, Deaths(vitals)
        self._stamps: dict[Path, tuple[int, int, int]] = {}
        self._pidfds: dict[int, int] = {}
        self._next_scan = 0.0

    @property
    def all_run(self) -> bool:
        """Whether all ranks of this node have started and none has ended."""
        return len(self.records) == self._nproc and all(
            record.exit is None and record.pid not in self.ended for record in self.records.values()
        )

    def poll(self) -> None:
        """Read what changed. Cheap: a stat for each rank of this node; until all of them run, where the run has several
        nodes, also a listing of all ranks of the run every half second.
        """
        for path in self._candidates():
            try:
                status = path.stat()
            except OSError:
                continue
            # a rank that starts and ends within one tick of the file system's clock writes twice at one mtime
            stamp = (status.st_mtime_ns, status.st_ino, status.st_size)
            if self._stamps.get(path) != stamp:
                self._stamps[path] = stamp
                self._take(RankRecord.read(path))
        self.wait(0)

    def _candidates(self) -> list[Path]:
        if self._known is not None:
            return self._known
        # No rank begins while each place is taken by a process that runs, and all ranks may be ten thousand.
        full = self.all_run and len(self._pidfds) == self._nproc and self._next_scan > 0.0
        if time.monotonic() >= self._next_scan and not full:
            self._next_scan = time.monotonic() + 0.5
            return [path for path in self._folder.iterdir() if path.suffix == ".json"]
        return [self._folder / f"{rank}.json" for rank in self.records]

    def _take(self, record: RankRecord | None) -> None:
        # Not of an earlier launch. A container may give each the same host name and pid, so the time counts too.
        if record is None or record.supervisor != self._supervisor or record.started_ns < self._since_ns:
            return
        end = record.exit
        if end is not None and end.mono_ns is not None:  # one clock for all ranks here, whatever was set meanwhile
            record = replace(record, exit=replace(end, time_ns=end.mono_ns + self._clock_ns))
        attempt = max((known.restart for known in self.records.values()), default=record.restart)
        if record.restart < attempt:  # written while the attempt was being ended
            self.earlier[-1][record.rank] = record
            return
        if record.restart > attempt:
            self.earlier.append(self.records)
            self.records = {}
        old = self.records.get(record.rank)
        self.records[record.rank] = record
        if old is None or old.pid != record.pid:
            self._begin(record)

    def _begin(self, record: RankRecord) -> None:
        self._deaths.watch(record.pid, record.vitals)
        descriptor = hostos.open_pidfd(record.pid)
        if descriptor is not None:
            self._pidfds[record.pid] = descriptor
        elif hostos.LINUX:  # it has ended already
            self._note_end(record.pid)
        if self._on_start is not None:
            self._on_start(record)

    def wait(self, seconds: float) -> None:
        """Wait this long, or until a rank's process ends: the moment is noted, which tells who was first."""
        poller = select.poll()
        for descriptor in self._pidfds.values():
            poller.register(descriptor, select.POLLIN)
        ended = {descriptor for descriptor, _ in poller.poll(seconds * 1000)}
        for pid, descriptor in list(self._pidfds.items()):
            if descriptor in ended:
                del self._pidfds[pid]
                os.close(descriptor)
                code = hostos.exit_code_of(pid)
                if code is not None:
                    self.codes[pid] = code
                self._note_end(pid)

    def one_ends(self, seconds: float) -> bool:
        """Whether a rank's process has ended or does within this time. At once, and nothing is noted yet."""
        poller = select.poll()
        for descriptor in self._pidfds.values():
            poller.register(descriptor, select.POLLIN)
        return bool(poller.poll(seconds * 1000))

    def _note_end(self, pid: int) -> None:
        died, now = self._deaths.time_of(pid), time.monotonic_ns()
        if died is None or now - died > _LONGEST_END_NS:  # no page, or one that the rank gave up by an exec
            died = now
        self.ended[pid] = died + self._clock_ns

    def look_again(self) -> None:
        """Read what changed, without waiting for the next listing, and what ranks could not write."""
        self._next_scan = 0.0
        self.poll()
        for record in self._left_in_pages():
            known = self.records.get(record.rank)
            if known is None or known.pid != record.pid or known.exit is None:
                self._take(record)
        self.wait(0)

    def _left_in_pages(self) -> list[RankRecord]:
        """The records that ranks of this attempt, or of the next, could not write."""
        if self._vitals is None:
            return []
        attempt = max((record.restart for record in self.records.values()), default=0)
        places = [offset_of(n, self._nproc, restart) for restart in (attempt, attempt + 1) for n in range(self._nproc)]
        found = (RankRecord.parse(words_in(self._vitals, place)) for place in places)
        return [record for record in found if record is not None]

    def running(self, parent: int) -> list[int]:
        """Pids of the ranks that run and are children of `parent`; a pid of an earlier launch may be anyone's."""
        found = (record.pid for record in self.records.values() if record.exit is None)
        found = (pid for pid in found if pid not in self.ended)
        return [pid for pid in found if hostos.parent_of(pid) in (parent, None)]

    def signal(self, signum: int, parent: int) -> None:
        """Signal every rank that runs and is a child of `parent`."""
        self.look_again()  # a rank may have started since the last look
        for pid in self.running(parent):
            tell(pid, signum)

    def failing_ns(self, pid: int) -> int | None:
        """Unix time at which an exception left the script of this process, recorded or not; None if none is known."""
        moment = self._deaths.failed_at(pid)
        return None if moment is None else moment + self._clock_ns

    def fault_of(self, record: RankRecord) -> Fault | None:
        """What Python said of a fatal signal in this rank's process; None if there was none."""
        fault = None if self._faults is None else self._faults.of(record.local_rank, record.pid)
        return None if fault is None else replace(fault, time_ns=fault.time_ns + self._clock_ns)

    def close(self) -> None:
        """Read the last records, keep what was said of fatal signals, and close the descriptors."""
        self.look_again()
        for rank, record in self.records.items():
            if fault := self.fault_of(record):
                with contextlib.suppress(OSError):
                    (self._folder / f"{rank}.fault").write_text(fault.text, encoding="utf-8", errors="backslashreplace")
        for descriptor in self._pidfds.values():
            os.close(descriptor)
        self._pidfds.clear()
        if self._faults is not None:
            self._faults.close()


def tell(pid: int, signum: int) -> None:
    """Send the signal, and let a process that was stopped (SIGSTOP) go on: it would not see the signal else."""
    hostos.send(pid, signum)
    seen = processes.look(pid)
    if seen is not None and seen.state == "T":
        hostos.send(pid, signal.SIGCONT)
