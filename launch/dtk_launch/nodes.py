"""`nodes/` in the run directory: what the dtk of each node tells the others, over the shared file system."""

from __future__ import annotations

import contextlib
import json
import math
import os
import socket
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dtk_launch import wholefile
from dtk_launch.diagnose.evidence import RankEnd
from dtk_launch.grace import AGENT_GRACE
from dtk_launch.plan import LaunchPlan

_LOOK_EVERY = 1.0  # seconds
_PATIENCE = 3.0  # seconds that the end of a failed run waits for what the other nodes know
_LONG_PATIENCE = 10.0  # and where all that is known is that somebody else was gone
_LONGEST_PATIENCE = AGENT_GRACE + 10.0  # and while the others' dtk live: they end their ranks, and then tell
_LIVELY = 6.0  # seconds since its last entry (one comes every two) for which a dtk counts as alive


def launch_id(plan: LaunchPlan) -> str:
    """What the nodes of one launch have in common. Of a launch by hand an earlier one of the same name has it, too."""
    rendezvous = plan.topology.rendezvous
    return rendezvous.id if rendezvous is not None else f"{socket.gethostname()}:{os.getpid()}"


class OtherNodes:
    """The other nodes of this launch, followed while it runs.

    torchrun does not look whether one of them has failed (pytorch#146371): its ranks may wait for it for half an hour.
    """

    def __init__(self, plan: LaunchPlan) -> None:
        self._plan, self._launch = plan, launch_id(plan)
        self._since_ns = time.time_ns()
        self._next_look = 0.0
        self._judged: dict[str, tuple[int, int]] = {}

    def failed(self, now: bool = False) -> bool:
        """Whether a node has ended with a failure since the start, as of the last second, or `now`.

        An elastic launch goes on without it.
        """
        if self._plan.topology.elastic or (time.monotonic() < self._next_look and not now):
            return False
        self._next_look = time.monotonic() + _LOOK_EVERY
        return any(map(self._tells_of_now, _listed(_failed(self._plan.run_dir))))

    def _tells_of_now(self, path: Path) -> bool:
        """Whether this is another node's failure since the start. One that is not is read once: it may be of many."""
        if path.stem == self._plan.topology.node:
            return False
        try:
            status = path.stat()
        except OSError:
            return False
        stamp = (status.st_mtime_ns, status.st_ino)
        if self._judged.get(path.name) == stamp:
            return False
        entry = _read(path, self._launch)
        if entry is not None and entry.get("time_ns", 0) > self._since_ns:
            return True
        self._judged[path.name] = stamp
        return False


def publish(run_dir: Path, node: str, launch: str, **facts: Any) -> None:
    """Replace this node's entry by these facts. A failed write never ends the run."""
    _write(run_dir / "nodes", node, launch, facts)


def publish_failure(run_dir: Path, node: str, launch: str) -> None:
    """Tell the others that this node has ended with a failure: in a folder that they list each second, else empty."""
    _write(_failed(run_dir), node, launch, {})


def _failed(run_dir: Path) -> Path:
    return run_dir / "nodes" / "failed"


def _write(folder: Path, node: str, launch: str, facts: dict[str, Any]) -> None:
    entry = {"launch": launch, "node": node, "time_ns": time.time_ns(), **facts}
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        wholefile.put(folder / f"{node}.json", json.dumps(entry), folder / f"{node}.json.tmp")


def entries(run_dir: Path, launch: str | None = None) -> dict[str, dict[str, Any]]:
    """Node -> its last entry, of this launch or of any."""
    return _entries(run_dir / "nodes", launch)


def _entries(folder: Path, launch: str | None) -> dict[str, dict[str, Any]]:
    found = ((path.stem, _read(path, launch)) for path in _listed(folder))
    return {node: entry for node, entry in found if entry is not None}


def _listed(folder: Path) -> list[Path]:
    try:
        return [folder / name for name in os.listdir(folder) if name.endswith(".json")]  # noqa: PTH208
    except OSError:
        return []


def _read(path: Path, launch: str | None) -> dict[str, Any] | None:
    """The entry, if it is one of this launch (None: of any)."""
    try:
        entry = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return entry if isinstance(entry, dict) and launch in (None, entry.get("launch")) else None


def ends_to_json(ends: Iterable[RankEnd]) -> list[dict[str, Any]]:
    """Ends as they stand in an entry."""
    return [asdict(end) for end in ends]


def ends_of_others(run_dir: Path, launch: str, own: str) -> tuple[list[RankEnd], set[str]]:
    """The ends that the other nodes have published at their own end, and these nodes."""
    ends: list[RankEnd] = []
    ended: set[str] = set()
    for node, entry in entries(run_dir, launch).items():
        if node != own and entry.get("state") == "ended":
            ended.add(node)
            with contextlib.suppress(TypeError, KeyError):
                ends += [
                    RankEnd(**{**values, "blames": tuple(values["blames"]), "related": tuple(values["related"])})
                    for values in entry["ends"]
                ]
    return ends, ended


def signalled_nodes(run_dir: Path, launch: str) -> set[str]:
    """The nodes that have ended because their dtk was told to."""
    return {node for node, entry in entries(run_dir, launch).items() if entry.get("signalled") is not None}


def silent_hosts(run_dir: Path, launch: str, own: str) -> list[str]:
    """The hosts of the other nodes that have not said that they ended."""
    found = entries(run_dir, launch).items()
    return [str(entry.get("host", node)) for node, entry in found if node != own and entry.get("state") == "running"]


class Liveliness:
    """Whether a node that has not ended still writes its entry. By this host's clock alone."""

    def __init__(self, run_dir: Path, launch: str, own: str) -> None:
        self._run_dir, self._launch, self._own = run_dir, launch, own
        self._stamps: dict[str, int] | None = None
        self._last = -math.inf
        self._next_look = 0.0

    def __call__(self) -> bool:
        """Whether one has in the last seconds. Looks once a second."""
        now = time.monotonic()
        if now >= self._next_look:
            self._next_look = now + _LOOK_EVERY
            found = entries(self._run_dir, self._launch)
            running = {node: entry for node, entry in found.items() if entry.get("state") == "running"}
            stamps = {node: entry.get("time_ns", 0) for node, entry in running.items() if node != self._own}
            if not stamps:
                self._last = -math.inf
            elif self._stamps is not None and stamps.items() - self._stamps.items():
                self._last = now
            self._stamps = stamps
        return now - self._last < _LIVELY


def wait_for_others(
    nodes: int,
    look: Callable[[], set[str]],
    only_lost: Callable[[], bool],
    hurry: Callable[[], bool],
    alive: Callable[[], bool],
) -> None:
    """After a failure, wait for the other nodes to say what they saw: a moment, longer while one of them is `alive`.

    `look` gives those that have said it.
    """
    began = time.monotonic()
    while len(look()) < nodes - 1 and not hurry():
        waited, living = time.monotonic() - began, alive()
        if waited > (_LONG_PATIENCE if only_lost() else _PATIENCE) and (waited > _LONGEST_PATIENCE or not living):
            return
        time.sleep(0.1)
