"""The process group of the ranks, as far as the measurement itself needs it, and its clock. Needs torch."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from .machine import busy_core_seconds

PATIENCE = timedelta(days=7)
"""Of a process group: the driver decides when it has waited for long enough."""


class Ranks:
    """The process group, as far as the measurement itself needs it; what is measured joins the default group."""

    def __init__(self, device: torch.device) -> None:
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
        self.device, self.rank, self.size = device, dist.get_rank(), dist.get_world_size()
        self._control = dist.new_group(backend="gloo", timeout=PATIENCE)

    def all_here(self) -> None:
        """Wait until every rank has done its work. Collective."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        dist.barrier(group=self._control)

    def total(self, value: float) -> float:
        """The sum over ranks. Collective."""
        tensor = torch.tensor(value, dtype=torch.float64)
        dist.all_reduce(tensor, group=self._control)
        return float(tensor)

    def largest(self, value: float) -> float:
        """The largest over ranks. Collective."""
        tensor = torch.tensor(value, dtype=torch.float64)
        dist.all_reduce(tensor, op=dist.ReduceOp.MAX, group=self._control)
        return float(tensor)

    @contextmanager
    def timed(self) -> Iterator[dict[str, Any]]:
        """The body's times, there after it: the clock runs from all ranks being ready to all having finished."""
        seen: dict[str, Any] = {}
        self.all_here()
        busy, cpu, start = busy_core_seconds(), time.process_time(), time.perf_counter()
        yield seen
        self.all_here()
        seconds = time.perf_counter() - start
        cpu = time.process_time() - cpu
        after = busy_core_seconds()
        used = self.total(cpu)
        others = None if busy is None or after is None else round(max(0.0, after - busy - used), 3)
        seen |= {"seconds": round(seconds, 6), "cpu_seconds": round(used, 6), "others_cpu_seconds": others}
