"""What the ranks of this node are doing, looked at every two seconds and written into the node's entry (nodes.py)."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable
from typing import Any

from dtk_launch import hostos, nodes
from dtk_launch.gpus import GpuMemory, find_program
from dtk_launch.pace import Pace
from dtk_launch.plan import LaunchPlan
from dtk_launch.rank_files import RankRecord
from dtk_launch.ranks import RankWatch
from dtk_launch.vitals import Page

_EVERY = 2.0  # seconds


class NodeStatus:
    """The ranks of one node, for whoever wants to look (`dtk top`)."""

    def __init__(
        self, plan: LaunchPlan, watch: RankWatch, pages: int | None, hang: Callable[[], str] = lambda: ""
    ) -> None:
        """`pages`: descriptor of the ranks' pages (vitals.py); `hang` says in a line how the run is stuck, if it is.

        The entry is there as soon as this returns.
        """
        self._plan, self._watch, self._pages, self._hang = plan, watch, pages, hang
        self._gpus = GpuMemory(None if plan.resources.device == "cpu" else find_program())
        self._processes: dict[int, _Process] = {}
        self._started_ns = time.time_ns()
        self._next = 0.0
        self.ranks: list[dict[str, Any]] = []
        """As in the entry (docs/wire.md)."""
        self._publish()

    @property
    def helper(self) -> int | None:
        """Pid of a process of this object's own, which may be beyond ending."""
        return self._gpus.pid

    def look(self, final: bool = False) -> None:
        """Write the entry anew, every two seconds. `final`: look once more; the last entry is the caller's to write."""
        if not final and time.monotonic() < self._next:
            return
        self._next = time.monotonic() + _EVERY
        gpu = self._gpus.look()
        records = self._watch.records
        alive = {record.pid for record in records.values()}
        self._processes = {pid: process for pid, process in self._processes.items() if pid in alive}
        self.ranks = [self._row(record, gpu.get(record.pid)) for _, record in sorted(records.items())]
        if final:
            self._gpus.close()
        else:
            self._publish()

    def counted(self) -> int | None:
        """Optimizer steps of the rank that has made most since it started, now; None where none has beaten."""
        steps = []
        for record in list(self._watch.records.values()):
            if self._pages is not None and record.vitals is not None:
                with contextlib.suppress(OSError, ValueError):
                    steps.append(Page(self._pages, record.vitals).heartbeat()[0])
        return max(steps, default=0) or None

    def facts(self) -> dict[str, Any]:
        """What the entry says of this launch, whatever its state."""
        restart = max((record.restart for record in self._watch.records.values()), default=0)
        return {"started_ns": self._started_ns, "restart": restart, "ranks": self.ranks}

    def _publish(self) -> None:
        topology = self._plan.topology
        where = {"host": socket.gethostname(), "pid": os.getpid()}
        nodes.publish(
            self._plan.run_dir,
            topology.node,
            nodes.launch_id(self._plan),
            **where,
            state="running",
            **self.facts(),
            **({"hang": stuck} if (stuck := self._hang()) else {}),
        )

    def _row(self, record: RankRecord, gpu: int | None) -> dict[str, Any]:
        process = self._processes.get(record.pid)
        if process is None:
            process = self._processes[record.pid] = _Process(record, self._pages)
        running = record.exit is None and record.pid not in self._watch.ended
        code = record.exit.code if record.exit is not None else self._watch.codes.get(record.pid)
        told = record.exit is not None or code == 0  # of os._exit(0) the record says nothing
        row: dict[str, Any] = {"rank": record.rank, "pid": record.pid}
        row["state"] = "running" if running else "ended" if told else "killed"
        if told:
            row["code"] = code
        row |= process.steps()
        if running:
            row |= process.usage()
            row |= {} if gpu is None else {"gpu": gpu}
        return row


class _Process:
    """One rank's process: its heartbeat and what it uses."""

    def __init__(self, record: RankRecord, pages: int | None) -> None:
        self._pid = record.pid
        self._page: Page | None = None
        self._pace = Pace()
        self._used: tuple[float, float] | None = None  # (when, seconds of CPU) of the last look
        if pages is not None and record.vitals is not None:
            try:
                self._page = Page(pages, record.vitals)
            except (OSError, ValueError):
                return

    def steps(self) -> dict[str, Any]:
        """Steps, their rate, and when the last of them ended (Unix time); nothing before the first."""
        steps, when_ns = self._page.heartbeat() if self._page is not None else (0, 0)
        if steps == 0:
            return {}
        self._pace.note(steps, when_ns)
        rate = self._pace.rate()
        found: dict[str, Any] = {"steps": steps, "beat_ns": when_ns + time.time_ns() - time.monotonic_ns()}
        return found if rate is None else found | {"rate": float(f"{rate:.4g}")}

    def usage(self) -> dict[str, Any]:
        """Resident bytes, and percent of a core since the last look; nothing where it cannot be seen."""
        usage = hostos.usage_of(self._pid)
        if usage is None:
            return {}
        now, before = time.monotonic(), self._used
        self._used = (now, usage[1])
        found: dict[str, Any] = {"rss": usage[0]}
        if before is not None and now > before[0]:
            found["cpu"] = round(100 * (usage[1] - before[1]) / (now - before[0]))
        return found
