"""The training loop of a rank, with a clock around it, and the parts of its steps. In ranks."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from itertools import pairwise
from statistics import fmean, median
from typing import Any

import torch
from bench_parts.machine import busy_core_seconds

import dist_toolkit as dtk

from . import memory
from .spans import Spans, clock_for
from .steptimes import kept
from .tables import ModelSpec, Size, StrategySpec
from .tasks import samples, step
from .waits import PART, Waits

_NOTHING = nullcontext()
_INSIDE = {"scatter": "scatter", "replicate": "replicate", "parallel_apply": "forward", "gather": "gather"}
"""Methods of torch's DataParallel, and the part of a step that each is."""


class Trainer:
    """One strategy on one model: engines and batches, and what is measured on them. All calls are collective."""

    def __init__(
        self, rt: dtk.Runtime, strategy: StrategySpec, model: ModelSpec, size: Size, engines: Sequence[Any],
        batches: Iterator[Any], batch: int, gpus: Sequence[int], waits: Waits,
    ) -> None:  # fmt: skip
        self._rt, self._strategy, self._model, self._size = rt, strategy, model, size
        self._engines, self._batches, self._batch, self._gpus = engines, batches, batch, gpus
        self._waits, self._clock, self._step_clock = waits, clock_for(gpus), clock_for(gpus[:1])

    def train(self, steps: int) -> dict[str, Any]:
        """Train; what was measured. The clock runs from all ranks being ready to all having finished."""
        group = self._rt.group
        if self._gpus:
            self._step(next(self._batches))  # memory that was given back is taken again
        self._clock.settle()
        group.barrier()
        marks = [self._step_clock.mark()]
        busy, cpu, start = busy_core_seconds(), time.process_time(), time.perf_counter()
        for _ in range(steps):
            loss = self._step(next(self._batches))
            marks.append(self._step_clock.mark())
        self._clock.settle()
        group.barrier()
        seconds = time.perf_counter() - start
        cpu = time.process_time() - cpu
        busy_after = busy_core_seconds()
        mine = {"cpu": cpu, "loss": float(loss.detach()), "rss": memory.peak_rss_mib()}
        seen = group.all_gather_json(mine | {"gpu": memory.peak_gpu_mib(self._gpus)})
        used = sum(rank["cpu"] for rank in seen)
        everyone = None if busy is None or busy_after is None else busy_after - busy
        times = [self._step_clock.milliseconds(first, last) for first, last in pairwise(marks)]
        if self._gpus:
            torch.cuda.empty_cache()  # for those whose turn is next
        return {
            "samples": steps * self._batch,
            "seconds": round(seconds, 6),
            "step_ms": [round(time, 4) for time in kept(times)],
            "loss": round(fmean(rank["loss"] for rank in seen), 6),
            "cpu_seconds": round(used, 3),
            "others_cpu_seconds": None if everyone is None else round(max(0.0, everyone - used), 3),
            "rss_mib": {"most": max(rank["rss"] for rank in seen), "sum": round(sum(rank["rss"] for rank in seen), 1)},
            **{name: max(rank["gpu"][name] for rank in seen) for name in seen[0]["gpu"]},
        }

    def phases(self, steps: int) -> dict[str, Any]:
        """Train with a clock in each step: milliseconds of each part, the median over steps, the mean over ranks."""
        spans = Spans(self._clock)
        self._waits.spans = spans if self._strategy.waits == "waits" else None
        found: list[Mapping[str, float]] = []
        alone: list[Mapping[str, float]] = []
        self._clock.settle()
        self._rt.group.barrier()
        with self._inside(spans):
            for _ in range(steps):
                with spans.part("data"):
                    batch = next(self._batches)
                self._step(batch, spans)
                found.append(spans.take())
                if self._strategy.waits == "differences":
                    with ExitStack() as stack:
                        for engine in self._engines:
                            stack.enter_context(engine._window(last=False))
                        self._step(batch, spans, update=False)
                    alone.append(spans.take())
        self._waits.spans = None
        mine = middle(found)
        seen = self._rt.group.all_gather_json(split(mine, middle(alone)) if alone else mine)
        if self._gpus:
            torch.cuda.empty_cache()
        names = dict.fromkeys(name for rank in seen for name in rank)
        return {"parts": {name: round(fmean(rank.get(name, 0.0) for rank in seen), 4) for name in names}}

    def attempt(self, batch: int) -> dict[str, Any]:
        """Two steps on `batch` samples of this process, and the memory that they took. Out of memory is raised."""
        memory.forget_peak(self._gpus)
        generator = torch.Generator().manual_seed(0)
        data = [tensor.to(self._rt.device) for tensor in samples(self._model, self._size, batch, generator)]
        start = time.perf_counter()
        for _ in range(2):
            self._step(data)
        self._clock.settle()
        seconds = (time.perf_counter() - start) / 2
        seen = self._rt.group.all_gather_json(
            {"rss": memory.peak_rss_mib(), "seconds": seconds, "gpu": memory.peak_gpu_mib(self._gpus)}
        )
        del data
        return {
            "step_seconds": round(max(rank["seconds"] for rank in seen), 4),
            "rss_mib": round(sum(rank["rss"] for rank in seen), 1),
            **{name: max(rank["gpu"][name] for rank in seen) for name in seen[0]["gpu"]},
        }

    def _step(self, batch: Any, spans: Spans | None = None, update: bool = True) -> torch.Tensor:
        part = (lambda name: _NOTHING) if spans is None else spans.part
        return step(self._model, self._size, self._engines, batch, part, update)

    @contextmanager
    def _inside(self, spans: Spans) -> Iterator[None]:
        """Methods of torch's DataParallel are parts of the step, within the body."""
        wrapped = [engine._wrapped for engine in self._engines if isinstance(engine._wrapped, torch.nn.DataParallel)]
        for module in wrapped:
            for name, part in _INSIDE.items():
                setattr(module, name, _timed(spans, part, getattr(module, name)))
        try:
            yield
        finally:
            for module in wrapped:
                for name in _INSIDE:
                    delattr(module, name)


def _timed(spans: Spans, part: str, call: Any) -> Any:
    def timed(*args: Any, **kwargs: Any) -> Any:
        with spans.part(part):
            return call(*args, **kwargs)

    return timed


def middle(steps: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The median of each part over steps."""
    names = dict.fromkeys(name for step in steps for name in step)
    return {name: median(step.get(name, 0.0) for step in steps) for name in names}


def split(whole: Mapping[str, float], alone: Mapping[str, float]) -> dict[str, float]:
    """The parts of a step, with what forward and backward last longer than without communication as its own part."""
    parts = dict(whole)
    parts[PART] = 0.0
    for name in ("forward", "backward"):
        exposed = max(0.0, whole[name] - alone[name])
        parts[name] -= exposed
        parts[PART] += exposed
    return parts
