"""What each rank of each strategy runs: build the model and the data once, then train as many steps as it is told."""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from bench_parts.channel import Channel, report_to_driver
from bench_parts.machine import busy_core_seconds

import dist_toolkit as dtk
from dist_toolkit.seeding import derive

from .tables import MODELS, STRATEGIES, ModelSpec, load

_BATCHES = 4  # different global batches, used in turn
_PATIENCE = 7 * 86400.0  # seconds that ranks wait for their next block, while others have their turn


def main(argv: list[str]) -> None:
    """Serve the driver until it says stop, or is gone."""
    given = _arguments(argv)
    spec, model = STRATEGIES[given.strategy], MODELS[given.model]
    torch.set_num_threads(given.threads)
    with dtk.init(seed=given.seed, timeout=_PATIENCE) as rt:
        channel = report_to_driver() if rt.world.is_main else None
        gpus = tuple(range(given.gpus))
        engine = rt.setup(
            load(model.build),
            partial(torch.optim.SGD, lr=1e-3, momentum=0.9),
            strategy=dtk.DataParallel(gpus) if gpus and spec.engine == "data_parallel" else spec.engine,
        )
        batches = _batches(rt, model, given.global_batch_size, given.seed)
        busy = gpus if spec.engine == "data_parallel" else gpus and (rt.device.index,)
        trainer = Trainer(rt, engine, batches, given.global_batch_size, busy)
        if channel is not None:
            channel.send({"strategy": given.strategy, **_hello(rt, engine, given)})
        _serve(rt, channel, trainer)


class Trainer:
    """The training loop, with a clock around it."""

    def __init__(
        self, rt: dtk.Runtime, engine: dtk.Engine, batches: Iterator[Any], batch: int, gpus: Sequence[int]
    ) -> None:
        self._rt, self._engine, self._batches, self._batch, self._gpus = rt, engine, batches, batch, gpus

    def train(self, steps: int) -> dict[str, Any]:
        """Train; what was measured. Collective. The clock runs from all ranks being ready to all having finished."""
        group = self._rt.group
        group.barrier()
        busy, cpu, start = busy_core_seconds(), time.process_time(), time.perf_counter()
        for _ in range(steps):
            inputs, targets = next(self._batches)
            loss = F.cross_entropy(self._engine(inputs), targets)
            self._engine.backward(loss)
            self._engine.step()
        for gpu in self._gpus:
            torch.cuda.synchronize(gpu)
        group.barrier()
        seconds = time.perf_counter() - start
        cpu = time.process_time() - cpu
        busy_after = busy_core_seconds()
        seen = group.all_gather_json([cpu, float(loss.detach())])
        used = sum(row[0] for row in seen)
        everyone = None if busy is None or busy_after is None else busy_after - busy
        return {
            "samples": steps * self._batch,
            "seconds": round(seconds, 6),
            "loss": round(sum(row[1] for row in seen) / len(seen), 6),
            "cpu_seconds": round(used, 3),
            "others_cpu_seconds": None if everyone is None else round(max(0.0, everyone - used), 3),
        }


def _serve(rt: dtk.Runtime, channel: Channel | None, trainer: Trainer) -> None:
    while True:
        command = rt.group.broadcast_json(_next_command(channel))
        if command["do"] == "stop":
            return
        answer = trainer.train(command["steps"])
        if channel is not None:
            channel.send(answer)


def _next_command(channel: Channel | None) -> dict[str, Any] | None:
    if channel is None:
        return None
    try:
        return channel.receive()
    except (EOFError, OSError):
        return {"do": "stop"}


def _batches(rt: dtk.Runtime, model: ModelSpec, batch: int, seed: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """This rank's share of each global batch, on its device, over and over: nothing is loaded while the clock runs."""
    generator = torch.Generator().manual_seed(derive(seed, "data"))
    inputs = torch.randn(_BATCHES, batch, *model.shape, generator=generator)
    targets = torch.randint(model.classes, (_BATCHES, batch), generator=generator)
    share = batch // rt.world.world_size
    mine = slice(rt.world.rank * share, (rt.world.rank + 1) * share)
    place = partial(torch.Tensor.to, device=rt.device)
    return itertools.cycle([(place(x[mine]), place(y[mine])) for x, y in zip(inputs, targets, strict=True)])


def _hello(rt: dtk.Runtime, engine: dtk.Engine, given: argparse.Namespace) -> dict[str, Any]:
    device = torch.cuda.get_device_name(rt.device) if rt.device.type == "cuda" else "cpu"
    return {
        "ranks": rt.world.world_size,
        "threads": torch.get_num_threads(),
        "device": device,
        "parameters": sum(parameter.numel() for parameter in engine.module.parameters()),
        "global_batch_size": given.global_batch_size,
    }


def _arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("strategy", choices=STRATEGIES)
    parser.add_argument("model", choices=MODELS)
    for flag in ("--global-batch-size", "--seed", "--threads", "--gpus"):
        parser.add_argument(flag, type=int, required=True)
    return parser.parse_args(argv)
