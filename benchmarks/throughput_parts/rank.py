"""What each rank of each strategy runs: build models and data once, then do what it is told, until told to stop."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from bench_parts.channel import Channel, report_to_driver
from torch.utils.data import TensorDataset

import dist_toolkit as dtk
from dist_toolkit.seeding import derive

from .tables import MODELS, PRECISIONS, SIZES, STRATEGIES, ModelSpec, Size
from .tasks import OPTIMIZERS, factories, samples
from .training import Trainer
from .waits import Waits

_PATIENCE = 7 * 86400.0  # seconds that ranks wait for their next block, while others have their turn
_DATA_BYTES = 64 * 2**20  # of the synthetic data set, but for two batches, which it has at least


def main(argv: list[str]) -> None:
    """Serve the driver until it says stop, or is gone."""
    given = _arguments(argv)
    model = MODELS[given.model]
    size = model.at(given.size)
    if given.count:
        from .flops import count

        print(json.dumps(count(model, size)))
        return
    waits = Waits()
    strategy, precision = STRATEGIES[given.strategy], PRECISIONS[given.precision]
    torch.set_num_threads(given.threads)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision.tf32
    with dtk.init(seed=given.seed, timeout=_PATIENCE) as rt:
        channel = report_to_driver() if rt.world.is_main else None
        gpus = _gpus(rt, strategy.launched, given.gpus)
        if len(gpus) == 1:
            waits.watch_stream(gpus[0])
        optimizer = OPTIMIZERS[model.optimizer]
        engines = [
            rt.setup(make, optimizer, strategy=_strategy(given.strategy, gpus), precision=precision.engine)
            for make in factories(model, size)
        ]
        data = _data(model, size, given.global_batch_size, given.seed)
        batches = _endless(rt.loader(data, global_batch_size=given.global_batch_size))
        trainer = Trainer(rt, strategy, model, size, engines, batches, given.global_batch_size, gpus, waits)
        if channel is not None:
            channel.send({"mode": given.mode, **_hello(rt, given.global_batch_size, data)})
        _serve(rt, channel, trainer)


def _gpus(rt: dtk.Runtime, launched: bool, number: int) -> tuple[int, ...]:
    if not number:
        return ()
    return (rt.device.index or 0,) if launched else tuple(range(number))


def _strategy(name: str, gpus: Sequence[int]) -> Any:
    """dist_toolkit's strategy object."""
    spec = STRATEGIES[name]
    kinds: dict[str, Any] = {
        "single": lambda: "single",
        "data_parallel": lambda: dtk.DataParallel(tuple(gpus) or None),
        "ddp": lambda: dtk.DDP(**spec.options),
        "fsdp": lambda: dtk.FSDP(**spec.options),
        "deepspeed": lambda: dtk.DeepSpeed(**spec.options),
    }
    return kinds[spec.engine]()


def _serve(rt: dtk.Runtime, channel: Channel | None, trainer: Trainer) -> None:
    while True:
        command = rt.group.broadcast_json(_next_command(channel))
        if command["do"] == "stop":
            return
        answer = getattr(trainer, command["do"])(command["number"])
        if channel is not None:
            channel.send(answer)


def _next_command(channel: Channel | None) -> dict[str, Any] | None:
    if channel is None:
        return None
    try:
        return channel.receive()
    except (EOFError, OSError):
        return {"do": "stop"}


def _data(model: ModelSpec, size: Size, batch: int, seed: int) -> TensorDataset:
    """Synthetic samples in memory: some global batches, the same on every rank."""
    one = sum(tensor.nbytes for tensor in samples(model, size, 1, None))
    batches = min(64, max(2, math.floor(_DATA_BYTES / (one * batch))))
    generator = torch.Generator().manual_seed(derive(seed, "data"))
    return TensorDataset(*samples(model, size, batches * batch, generator))


def _endless(loader: dtk.Loader) -> Iterator[Any]:
    while True:
        yield from loader


def _hello(rt: dtk.Runtime, batch: int, data: TensorDataset) -> dict[str, Any]:
    return {
        "ranks": rt.world.world_size,
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(rt.device) if rt.device.type == "cuda" else "cpu",
        "global_batch_size": batch,
        "data_mib": round(sum(tensor.nbytes for tensor in data.tensors) / 2**20, 1),
    }


def _arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add = parser.add_argument
    add("model", choices=MODELS)
    add("--size", choices=SIZES, required=True)
    add("--count", action="store_true")
    add("--strategy", choices=STRATEGIES)
    add("--mode")
    add("--precision", choices=PRECISIONS)
    for flag in ("--global-batch-size", "--seed", "--threads", "--gpus"):
        add(flag, type=int)
    return parser.parse_args(argv)
