"""The ranks of one launch as the run directory shows them: their records, and when one vanished unrecorded."""

from __future__ import annotations

import json
import os
import select
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dtk_launch import hostos


@dataclass(frozen=True)
class RankExit:
    """How a rank said that it ended. `type` is the exception's, None after a clean end."""

    code: int
    type: str | None
    message: str
    traceback: str
    time_ns: int


@dataclass(frozen=True)
class RankRecord:
    """`ranks/<rank>.json` (docs/wire.md). `exit` is None while the rank runs, and for ever if it was killed."""

    rank: int
    local_rank: int
    pid: int
    host: str
    restart: int
    supervisor: str | None
    started_ns: int
    exit: RankExit | None = None

    @classmethod
    def read(cls, path: Path) -> RankRecord | None:
        """The record, or None if there is none that can be read."""
        try:
            fields: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            ended = fields.pop("exit", None)
            return cls(**fields, exit=RankExit(**ended) if ended else None)
        except (OSError, ValueError, TypeError):
            return None


class RankWatch:
    """Follows the records that the ranks of this supervisor write. `nproc` of them are expected on this node."""

    def __init__(self, folder: Path, supervisor: str, nproc: int, one_node: bool) -> None:
        self.records: dict[int, RankRecord] = {}
        self.vanished: dict[int, int] = {}
        """Rank -> wall time (ns) at which its process was seen to have ended without an exit record."""
        self._folder, self._supervisor, self._nproc = folder, supervisor, nproc
        self._known = range(nproc) if one_node else None
        self._since_ns = time.time_ns()
        self._stamps: dict[Path, tuple[int, int, int]] = {}
        self._pidfds: dict[int, int] = {}
        self._next_scan = 0.0

    def poll(self) -> None:
        """Read what changed. Cheap: a stat for each rank of one node; on several, a listing every half second."""
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
            return [self._folder / f"{rank}.json" for rank in self._known]
        if time.monotonic() >= self._next_scan:
            self._next_scan = time.monotonic() + 0.5
            return [path for path in self._folder.iterdir() if path.suffix == ".json"]
        return [self._folder / f"{rank}.json" for rank in self.records]

    def _take(self, record: RankRecord | None) -> None:
        # Not of an earlier launch. A container may give each the same host name and pid, so the time counts too.
        if record is None or record.supervisor != self._supervisor or record.started_ns < self._since_ns:
            return
        old = self.records.get(record.rank)
        self.records[record.rank] = record
        if old is None or old.pid != record.pid:
            self._forget(record.rank)
            descriptor = hostos.open_pidfd(record.pid)
            if descriptor is not None:
                self._pidfds[record.rank] = descriptor

    def wait(self, seconds: float) -> None:
        """Wait this long, or until a rank's process ends: the moment is noted, which tells who was first."""
        poller = select.poll()
        for descriptor in self._pidfds.values():
            poller.register(descriptor, select.POLLIN)
        ended = {descriptor for descriptor, _ in poller.poll(seconds * 1000)}
        for rank, descriptor in list(self._pidfds.items()):
            if descriptor in ended:
                self._forget(rank)
                self.vanished[rank] = time.time_ns()

    def _forget(self, rank: int) -> None:
        self.vanished.pop(rank, None)
        descriptor = self._pidfds.pop(rank, None)
        if descriptor is not None:
            os.close(descriptor)

    def signal(self, signum: int, parent: int) -> None:
        """Signal every rank that runs and is a child of `parent`: a pid of an earlier launch may be anyone's by now."""
        self._next_scan = 0.0
        self.poll()  # a rank may have started since the last look
        for record in self.records.values():
            if record.exit is None and hostos.parent_of(record.pid) in (parent, None):
                hostos.send(record.pid, signum)

    def close(self) -> None:
        """Read the last records and close the descriptors."""
        self._next_scan = 0.0
        self.poll()
        for rank in list(self._pidfds):
            descriptor = self._pidfds.pop(rank)
            os.close(descriptor)
