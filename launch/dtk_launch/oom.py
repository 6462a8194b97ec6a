"""Did the kernel kill a rank for want of memory? Counters of cgroups and of the machine, and the kernel's own words."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping
from pathlib import Path

from dtk_launch.cgroups import groups_of

_KILLED = re.compile(r"Killed process (\d+)")


class OomWatch:
    """Compares the kernel's counts of out-of-memory kills at the ranks' start with those at the end."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self._before: dict[Path, int] = {}
        self._kernel = _open_kernel_log(root)
        self._named: set[int] = set()
        self._vmstat = root / "proc/vmstat"
        self._watch(self._vmstat)

    def add(self, pid: int) -> None:
        """Watch the cgroups of this process, up to the root. Call it while the process lives."""
        for folder in cgroups_of(pid, self._root):
            for name in ("memory.events", "memory.oom_control"):
                self._watch(folder / name)

    def _watch(self, file: Path) -> None:
        if file not in self._before:
            count = kills_in(file)
            if count is not None:
                self._before[file] = count

    def verdict(self, pid: int) -> str:
        """What speaks for the out-of-memory killer having killed this process, in words; '' if nothing does."""
        if pid in self._killed_by_kernel():
            return "by the kernel's out-of-memory killer"
        risen = [file for file, count in self._before.items() if (kills_in(file) or 0) > count]
        group = next((file for file in risen if file != self._vmstat), None)
        if group is not None:
            limit = _limit(group.parent)
            return f"by the kernel's out-of-memory killer{limit and f' (limit of its cgroup: {limit})'}"
        return "probably by the kernel's out-of-memory killer, which was at work on this machine" if risen else ""

    def _killed_by_kernel(self) -> set[int]:
        """Pids in what the kernel has written since the start (of the initial pid namespace: not a container's)."""
        if self._kernel is not None:
            with contextlib.suppress(OSError):  # BlockingIOError: the end
                while line := os.read(self._kernel, 8192).decode(errors="replace"):
                    self._named.update(int(pid) for pid in _KILLED.findall(line))
        return self._named

    def close(self) -> None:
        """Let go of the kernel's log."""
        if self._kernel is not None:
            os.close(self._kernel)
            self._kernel = None


def _open_kernel_log(root: Path) -> int | None:
    try:
        descriptor = os.open(root / "dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return None
    with contextlib.suppress(OSError):
        os.lseek(descriptor, 0, os.SEEK_END)
    return descriptor


def cgroups_of(pid: int, root: Path = Path("/")) -> list[Path]:
    """Folders of the memory cgroup (v1 or v2) of a process and of its parents, the innermost first."""
    return [folder for controller in ("", "memory") for folder in groups_of(controller, root, str(pid))]


def kills_in(file: Path) -> int | None:
    """`oom_kill` of a file of `name value` lines; None where there is none."""
    try:
        counts: Mapping[str, str] = dict(line.split(None, 1) for line in file.read_text().splitlines() if " " in line)
        return int(counts["oom_kill"])
    except (OSError, KeyError, ValueError):
        return None


def _limit(folder: Path) -> str:
    for name in ("memory.max", "memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):
            return f"{int((folder / name).read_text()) / 2**20:.0f} MiB"
    return ""
