"""Runs a script as it is, looks at its optimizer steps, and ends it after some: what was seen goes to the driver.

A step ends when the optimizer that stepped first has stepped again, by torch's hook for all optimizers, so any loop is
seen that uses one of torch's (Trainer, Accelerate, Fabric, DeepSpeed and dist_toolkit do). When enough steps were seen
every rank leaves at the same step, by os._exit: the script saves nothing on its way out.
"""

from __future__ import annotations

import argparse
import os
import resource
import runpy
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from bench_parts.channel import Channel, report_to_driver
from bench_parts.machine import busy_core_seconds
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook

from .apart import keep_checkpoints_apart

_LEAST = 3  # steps, below which there is no median
_MOST_BYTES = 1 << 28  # of the gradients whose all-reduce is timed; beyond, a part of them is
_FOLLOW = ("dist_toolkit", "accelerate", "lightning", "pytorch_lightning", "lightning_fabric", "deepspeed")
_PAUSE = 0.5  # seconds in which what this rank has sent last arrives
_PACE = 10.0  # seconds from one word to the driver that steps are made to the next


class Probe:
    """The clock of one rank."""

    def __init__(self, warmup: int, steps: int, seconds: float, driver: Channel | None) -> None:
        """`driver` is None on all ranks but 0."""
        self._warmup, self._steps, self._seconds, self._driver = warmup, steps, seconds, driver
        self._told = -_PACE
        self._optimizer: int | None = None
        self._ends: list[float] = []
        self._weights = 0
        self._agreed: int | None = None
        """Steps after which all ranks leave."""
        self._began: tuple[float | None, float, float] = (None, 0.0, 0.0)

    def after_step(self, optimizer: Optimizer, *_: object) -> None:
        """torch's hook."""
        if self._optimizer is None:
            self._optimizer = id(optimizer)
            self._weights = sum(p.numel() for group in optimizer.param_groups for p in group["params"])
        if id(optimizer) != self._optimizer:
            return
        _synchronise()
        self._ends.append(time.perf_counter())
        self._tell(self._ends[-1])
        if len(self._ends) == self._warmup + _LEAST + 1:
            self._agreed = self._agree()
            self._began = busy_core_seconds(), time.process_time(), time.perf_counter()
        if self._agreed is not None and len(self._ends) > self._agreed:
            self.report()
            time.sleep(_PAUSE)
            os._exit(0)

    def _tell(self, now: float) -> None:
        """Say that steps are made, now and then: the driver waits for the next word, however many steps there are."""
        if self._driver is not None and now - self._told >= _PACE:
            self._driver.send({"kind": "alive"})
            self._told = now

    def _agree(self) -> int:
        """The number of steps at which all ranks leave: as many as fit the time of the slowest, at most all."""
        mean = (self._ends[-1] - self._ends[-_LEAST - 1]) / _LEAST
        fitting = int(_least([self._seconds / max(mean, 1e-9)])[0])
        return self._warmup + max(_LEAST + 1, min(self._steps, fitting))

    def report(self) -> None:
        """Tell the driver. Collective, where there is a process group."""
        others = self._others()
        times = [b - a for a, b in zip(self._ends, self._ends[1:], strict=False)][self._warmup :]
        rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        cuda = torch.cuda.is_available() and torch.cuda.is_initialized()
        gpu = torch.cuda.max_memory_allocated() if cuda else 0
        most = [-value for value in _least([-float(rss), -float(gpu)])]
        seen = {
            "kind": "seen",
            "seconds": [round(seconds, 6) for seconds in times],
            "ranks": dist.get_world_size() if _together() else 1,
            "threads": torch.get_num_threads(),
            "weights": self._weights,
            "rss": int(most[0]),
            "gpu": int(most[1]) or None,
            "device": torch.cuda.get_device_name() if cuda else "cpu",
            "gpu_total": torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory if cuda else None,
            "follows": any(name in sys.modules for name in _FOLLOW),
            "others": others,
            "all_reduce": self._all_reduce(),
        }
        if self._driver is not None:
            self._driver.send(seen)

    def _others(self) -> float | None:
        """Cores that other programs used since all ranks agreed; None where that cannot be seen. Collective."""
        before, cpu, start = self._began
        after, seconds = busy_core_seconds(), time.perf_counter() - start
        (used,) = _reduced([time.process_time() - cpu], sum_up=True)
        return None if before is None or after is None else round(max(0.0, after - before - used) / seconds, 3)

    def _all_reduce(self) -> dict[str, Any] | None:
        """The time to sum this many numbers over all ranks, when nothing else is done; None on one rank."""
        if not _together() or dist.get_world_size() == 1 or not self._weights:
            return None
        tensor = torch.zeros(min(self._weights, _MOST_BYTES // 4), device=_device())
        times = []
        for _ in range(4):
            dist.barrier()
            _synchronise()
            began = time.perf_counter()
            dist.all_reduce(tensor)
            _synchronise()
            times.append(time.perf_counter() - began)
        return {"bytes": tensor.numel() * 4, "seconds": sorted(times[1:])[1]}


def _together() -> bool:
    return dist.is_available() and dist.is_initialized()


def _device() -> torch.device:
    on_gpu = "nccl" in dist.get_backend() and torch.cuda.is_available()
    return torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device("cpu")


def _least(values: list[float]) -> list[float]:
    """The least of each over ranks. Collective, where there is a process group."""
    return _reduced(values, sum_up=False)


def _reduced(values: list[float], sum_up: bool) -> list[float]:
    if not _together() or dist.get_world_size() == 1:
        return values
    tensor = torch.tensor(values, dtype=torch.float64, device=_device())
    dist.all_reduce(tensor, op=dist.ReduceOp.SUM if sum_up else dist.ReduceOp.MIN)
    found: list[float] = tensor.tolist()
    return found


def _synchronise() -> None:
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()


def _connect() -> Channel | None:
    """To the driver, before the script loads anything; of rank 0, whether or not the script makes a process group."""
    if os.environ.get("RANK", "0") != "0":
        return None
    driver = report_to_driver()
    os.register_at_fork(after_in_child=driver.close)  # or a worker's copy would keep it open when this rank is gone
    return driver


def main(argv: list[str]) -> None:
    """Run the script until enough was seen, or it ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--warmup", type=int, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("script")
    parser.add_argument("words", nargs=argparse.REMAINDER)
    given = parser.parse_args(argv)
    probe = Probe(given.warmup, given.steps, given.seconds, _connect())
    register_optimizer_step_post_hook(probe.after_step)
    keep_checkpoints_apart(Path(os.environ["DTK_RUN_DIR"]) / "advise")
    sys.argv = [given.script, *given.words]
    sys.path[0] = str(Path(given.script).resolve().parent)
    try:
        runpy.run_path(given.script, run_name="__main__")
    except SystemExit as end:
        if end.code not in (None, 0):
            raise
    made = len(probe._ends)
    raise SystemExit(
        f"the script made {made} optimizer steps, and {given.warmup + _LEAST + 1} are needed; let it train longer, or "
        "pass a smaller --warmup"
        if made
        else "the script made no step of a torch optimizer; is it one that trains, and has it not finished before?"
    )
