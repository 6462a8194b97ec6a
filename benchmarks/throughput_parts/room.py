"""The memory that there is for a benchmark."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

_GIB = 2**30


def available_gib(root: Path = Path("/")) -> float:
    """GiB that can be taken without swapping: what the system has free, or the control group allows if that is less.

    Args:
        root: below which /proc and /sys are.
    """
    found = _free(root)
    group = root / "sys/fs/cgroup"
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        with suppress(OSError, ValueError):
            allowed = int((group / limit).read_text()) - int((group / used).read_text())
            found = min(found, max(0, allowed))
    return found / _GIB


def _free(root: Path) -> int:
    with suppress(OSError):
        for line in (root / "proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
