"""Processes as /proc shows them: who descends from whom, the CPU they used, what they read and wrote. Linux."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100

_DEVICES = tuple(f"/dev/{name}" for name in ("nvidia", "kfd", "dri/", "accel", "davinci", "hl"))


@dataclass(frozen=True)
class Seen:
    """One process. `cpu`: seconds so far. `start` never changes and tells a pid's owner from a later one."""

    pid: int
    parent: int
    state: str
    cpu: float
    start: int


def look(pid: int) -> Seen | None:
    """The process; None if there is none, or no /proc."""
    return _stat(f"/proc/{pid}/stat", pid)


def _stat(path: str, pid: int) -> Seen | None:
    try:
        with open(path, "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        return Seen(
            pid, int(fields[1]), fields[0].decode(), (int(fields[11]) + int(fields[12])) / _TICK, int(fields[19])
        )
    except (OSError, IndexError, ValueError):
        return None


def main_thread(pid: int) -> Seen | None:
    """The main thread of the process, its CPU alone."""
    return _stat(f"/proc/{pid}/task/{pid}/stat", pid)


def look_at_all() -> dict[int, Seen]:
    """Every process that can be seen."""
    try:
        pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208
    except OSError:
        return {}
    return {pid: seen for pid in pids if (seen := look(pid)) is not None}


def descendants(pid: int, everything: Mapping[int, Seen]) -> Iterator[Seen]:
    """Children, their children and so on."""
    for seen in everything.values():
        if seen.parent == pid and seen.state != "Z":
            yield seen
            yield from descendants(seen.pid, everything)


def stored_bytes(pid: int) -> int:
    """What a process has read from and written to storage so far; 0 where it cannot be seen."""
    try:
        with open(f"/proc/{pid}/io", "rb") as file:
            fields = dict(line.split(b": ") for line in file.read().splitlines())
        return int(fields[b"read_bytes"]) + int(fields[b"write_bytes"])
    except (OSError, KeyError, ValueError):
        return 0


def drives_device(pid: int) -> bool:
    """Whether the process has an accelerator open: to wait for one, a thread often spins, and so uses CPU."""
    folder = f"/proc/{pid}/fd"
    try:
        for name in os.listdir(folder):  # noqa: PTH208
            with contextlib.suppress(OSError):
                if os.readlink(f"{folder}/{name}").startswith(_DEVICES):  # noqa: PTH115
                    return True
    except OSError:
        return True
    return False


def started_before(seen: Seen, time_ns: int) -> bool | None:
    """Whether a process started before this Unix time (a second's tolerance); None where that cannot be told."""
    try:
        with open("/proc/stat", "rb") as file:
            boot = next(int(line.split()[1]) for line in file if line.startswith(b"btime"))
    except (OSError, StopIteration, ValueError):
        return None
    return boot + seen.start / _TICK <= time_ns / 1e9 + 1.0


def catches(pid: int, signum: int) -> bool:
    """Whether the process has a handler for the signal: one that has run another program since has not."""
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            caught = next(int(line.split()[1], 16) for line in file if line.startswith(b"SigCgt"))
    except (OSError, StopIteration, ValueError):
        return False
    return bool(caught >> (signum - 1) & 1)


def has_open(pid: int, descriptor: int, path: Path) -> bool:
    """Whether the descriptor of the process is this file: a program may have closed it and opened another there."""
    try:
        theirs, ours = os.stat(f"/proc/{pid}/fd/{descriptor}"), path.stat()  # noqa: PTH116
    except OSError:
        return False
    return (theirs.st_dev, theirs.st_ino) == (ours.st_dev, ours.st_ino)


def has_file(pid: int, wanted: os.stat_result) -> bool:
    """Whether any descriptor of the process is this file; false where that cannot be seen, as of another user's."""
    try:
        descriptors = list(Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return False
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            if os.path.samestat(descriptor.stat(), wanted):
                return True
    return False
