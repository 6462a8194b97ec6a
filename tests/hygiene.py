"""What a test may not leave behind: variables, threads, processes, a process group, entries in /dev/shm."""

from __future__ import annotations

import os
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

SERVERS = ("multiprocessing.forkserver", "multiprocessing.resource_tracker")
"""Helpers that multiprocessing keeps until the end of the session."""


@dataclass(frozen=True)
class Snapshot:
    """What this process has at one moment."""

    env: frozenset[tuple[str, str]]
    threads: frozenset[str]
    children: frozenset[int]
    shm: frozenset[str]

    @classmethod
    def take(cls) -> Snapshot:
        """Look around."""
        env = {(k, v) for k, v in os.environ.items() if k != "PYTEST_CURRENT_TEST"}
        threads = {thread.name for thread in threading.enumerate()}
        shm = set(os.listdir("/dev/shm")) if Path("/dev/shm").is_dir() else set()
        return cls(frozenset(env), frozenset(threads), frozenset(_children()), frozenset(shm))


def leaks(before: Snapshot, patience: float = 3.0) -> list[str]:
    """What is there now and was not before; things on their way out get `patience` seconds."""
    deadline = time.monotonic() + patience
    while (found := _compare(before, Snapshot.take())) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


def _compare(before: Snapshot, after: Snapshot) -> list[str]:
    found = [f"variable {name}" for name, _ in before.env ^ after.env]
    found += [f"thread {name}" for name in after.threads - before.threads]
    found += [f"process {pid}: {_command(pid)}" for pid in after.children - before.children]
    found += [path for name in after.shm - before.shm if not _in_use_elsewhere(path := f"/dev/shm/{name}")]
    torch = sys.modules.get("torch")
    if torch is not None and torch.distributed.is_initialized():
        found.append("a process group")
    return found


def _in_use_elsewhere(path: str) -> bool:
    """Whether a process that is not below this one has it in its memory, where another worker of pytest may have it."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return False
    own = {os.getpid()}
    for entry in sorted(Path("/proc").glob("[0-9]*"), key=lambda entry: int(entry.name)):
        pid = int(entry.name)
        with suppress(OSError, IndexError, ValueError):
            if int((entry / "stat").read_text().rpartition(")")[2].split()[1]) in own:
                own.add(pid)
            elif pid not in own and f" {path}\n" in (entry / "maps").read_text():
                return True
    return False


def _children() -> set[int]:
    """Live child processes of this process, servers excepted. Empty where there is no /proc."""
    pids: set[int] = set()
    for task in Path(f"/proc/{os.getpid()}/task").glob("*/children"):
        with suppress(FileNotFoundError, ProcessLookupError):  # a thread that has just ended
            pids.update(int(pid) for pid in task.read_text().split())
    return {pid for pid in pids if not any(server in _command(pid) for server in SERVERS) and _alive(pid)}


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
