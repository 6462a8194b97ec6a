"""The machine and the versions, as they go into the results (no host names, no paths), and how busy its cores are."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import subprocess
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

# Of the caller's; they change what threads do, and are passed on.
_TUNING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OMP_PROC_BIND", "CUDA_VISIBLE_DEVICES")
_CODE = ("benchmarks/*.py", "dist_toolkit", "launch")  # what is measured
_DIFF = ("--binary", "--full-index", "--no-ext-diff", "--no-textconv", "--no-color")  # whatever the user's git shows
_ROOT = Path(__file__).resolve().parent.parent.parent


def describe(cores: int) -> dict[str, Any]:
    """The record `machine`: where this is, with how many cores to use, and what is measured."""
    return {
        "kind": "machine",
        "started": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "cpu": _cpu_model(),
        "cores": cores,
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": metadata.version("torch"),
        "dist_toolkit": metadata.version("dist-toolkit"),
        "environment": {name: value for name, value in sorted(os.environ.items()) if name in _TUNING},
        **code_of(_ROOT),
    }


def busy_core_seconds() -> float | None:
    """Seconds that the cores of this process have been busy since the start, whoever used them; None off Linux.

    Time that the hypervisor gave to others (steal) counts as busy.
    """
    try:
        lines = Path("/proc/stat").read_text().splitlines()
        mine = {f"cpu{number}" for number in os.sched_getaffinity(0)}
    except (OSError, AttributeError):
        return None
    ticks = 0
    for name, *fields in (line.split() for line in lines if line.startswith("cpu")):
        if name in mine:
            user, nice, system, _idle, _iowait, irq, softirq, steal = (int(field) for field in fields[:8])
            ticks += user + nice + system + irq + softirq + steal
    return ticks / os.sysconf("SC_CLK_TCK")


def _cpu_model() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def code_of(root: Path) -> dict[str, Any]:
    """The commit of this checkout, and whether files differ from it; None for an installed copy, which has a version.

    Where they do, `uncommitted_diff` is a digest of how those differ that git knows.
    """
    nothing = {"commit": None, "uncommitted_changes": None}
    if not (root / ".git").exists() or not (root / "dist_toolkit").is_dir():
        return nothing

    def git(*words: str) -> bytes:
        environ = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}  # one that is killed with this leaves the user no lock
        return subprocess.run(["git", *words], cwd=root, env=environ, capture_output=True, check=True).stdout.strip()

    try:
        commit = git("rev-parse", "--short=12", "HEAD").decode()
        if not git("status", "--porcelain", "--", *_CODE):
            return {"commit": commit, "uncommitted_changes": False}
        diff = git("diff-index", "--patch", *_DIFF, "HEAD", "--", *_CODE)
    except (OSError, subprocess.CalledProcessError):
        return nothing
    digest = hashlib.sha256(diff).hexdigest()[:12]
    return {"commit": commit, "uncommitted_changes": True, "uncommitted_diff": digest}
