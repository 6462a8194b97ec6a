"""The most memory that a process has used. In ranks."""

from __future__ import annotations

import resource
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import torch

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def peak_rss_mib() -> float:
    """The most resident memory of this process since its start, or since `forget_peak`; pages of libraries, which
    processes share, included.
    """
    with suppress(OSError):
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return round(int(line.split()[1]) / 1024, 1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 1024), 1)


def forget_peak(gpus: Sequence[int]) -> None:
    """Begin anew; the peak of resident memory, on Linux alone."""
    with suppress(OSError):
        _CLEAR.write_text("5")
    for gpu in gpus:
        torch.cuda.reset_peak_memory_stats(gpu)


def peak_gpu_mib(gpus: Sequence[int]) -> dict[str, float]:
    """The most that tensors took (`allocated`) and that torch held (`reserved`) on the fullest of these GPUs."""
    if not gpus:
        return {}
    return {
        "gpu_allocated_mib": round(max(torch.cuda.max_memory_allocated(gpu) for gpu in gpus) / 2**20, 1),
        "gpu_reserved_mib": round(max(torch.cuda.max_memory_reserved(gpu) for gpu in gpus) / 2**20, 1),
    }
