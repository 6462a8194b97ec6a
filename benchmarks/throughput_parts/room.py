"""The memory that there is for a benchmark."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from dtk_launch.cgroups import memory_left

_GIB = 2**30


def available_gib(root: Path = Path("/")) -> float:
    """GiB that can be taken without swapping: what the system has free, or a control group of this process allows if
    that is less (its own, such as that of `--mem` of SLURM, or one above it).

    Args:
        root: below which /proc and /sys are.
    """
    free, allowed = _free(root), memory_left(root)
    return (free if allowed is None else min(free, allowed)) / _GIB


def _free(root: Path) -> int:
    with suppress(OSError):
        for line in (root / "proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
