"""What each rank runs: all loops are set up in one process group, then they take turns."""

from __future__ import annotations

import argparse
import gc
import os
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
import torch.distributed as dist
from bench_parts.channel import report_to_driver
from bench_parts.group import Ranks
from torch.profiler import ProfilerActivity, profile

from . import guard
from .loops import Loop, make
from .tables import BASELINE, FEEDS, LOOPS
from .work import Job

Key = tuple[str, str]
"""Feed and loop."""

_WARMUP = 10  # steps that are not measured, of each loop
_COUNTED = 10  # steps whose collectives are counted, after all rounds


def main(argv: list[str]) -> None:
    """Measure, and tell the driver what was seen."""
    given = _arguments(argv)
    device = torch.device("cpu")
    if given.device == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    with ExitStack() as cleanup:
        ranks = Ranks(device)
        cleanup.callback(dist.destroy_process_group)
        channel = report_to_driver() if ranks.rank == 0 else None
        if channel is not None:
            cleanup.callback(channel.close)
        send: Callable[[Mapping[str, Any]], None] = (lambda _: None) if channel is None else channel.send
        job = Job(device, ranks.rank, ranks.size, given.batch, given.width, given.seed)
        loops = _set_up(given, job, cleanup)
        torch.set_num_threads(given.threads)  # whatever a library has made of it
        send(_hello(job, given))
        _measure(ranks, loops, given, send)
        counts = {key: _collectives(loop) for key, loop in loops.items()}
        for record in _compare(loops):
            send({**record, "collectives": counts[record["feed"], record["loop"]]})
        if "dtk-noguard" in given.loops.split(",") and ranks.size > 1:
            send(guard.cost_alone(ranks.rank, device.type))
        ranks.all_here()


def _set_up(given: argparse.Namespace, job: Job, cleanup: ExitStack) -> dict[Key, Loop]:
    return {
        (feed, name): make(name, job, feed, cleanup)
        for name in given.loops.split(",")
        for feed in given.feeds.split(",")
        if feed in LOOPS[name].feeds
    }


def _measure(
    ranks: Ranks, loops: Mapping[Key, Loop], given: argparse.Namespace, send: Callable[[Mapping[str, Any]], None]
) -> None:
    for loop in loops.values():
        loop.run(_WARMUP)
    gc.collect()
    gc.freeze()  # what all loops hold together is not to be searched in the turn of one of them
    turns = random.Random(given.seed)
    for number in range(given.rounds + 1):
        order = _order(list(loops), turns)
        if 0 < number < given.first:
            continue
        for position, key in enumerate(order):
            seen = _block(ranks, loops[key], given.steps)
            feed, name = key
            if number < given.first:  # what is gone on with needs a warm-up, too
                continue
            send(
                {"kind": "block", "feed": feed, "loop": name, "round": number, "warmup": number == 0,
                 "position": position, "steps": given.steps, **seen}
            )  # fmt: skip


def _order(keys: Sequence[Key], turns: random.Random) -> list[Key]:
    """Feed by feed, so that a loop and its baseline are near each other; within a feed in a drawn order."""
    order = []
    for feed in FEEDS:
        mine = [key for key in keys if key[0] == feed]
        turns.shuffle(mine)
        order += mine
    return order


def _block(ranks: Ranks, loop: Loop, steps: int) -> dict[str, Any]:
    """The clock runs from all ranks being ready to all having finished."""
    with ranks.timed() as seen:
        loop.run(steps)
    return seen


def _collectives(loop: Loop) -> float:
    """Calls of torch.distributed in a step, the mean over some. Collective."""
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        loop.run(_COUNTED)
    return sum(event.name.startswith("c10d::") for event in seen.events()) / _COUNTED


def _compare(loops: Mapping[Key, Loop]) -> list[dict[str, Any]]:
    """Whether the loops did the same work: their weights against those of the hand-written loop on the same feed."""
    records = []
    for (feed, name), loop in loops.items():
        mine, base = _weights(loop), _weights(loops[feed, BASELINE])
        scale = max(float(tensor.abs().max()) for tensor in base)
        largest = max(float((a - b).abs().max()) for a, b in zip(mine, base, strict=True))
        same = all(torch.equal(a, b) for a, b in zip(mine, base, strict=True))
        records.append(
            {"kind": "weights", "feed": feed, "loop": name, "identical": same, "difference": largest / scale}
        )
    return records


def _weights(loop: Loop) -> list[torch.Tensor]:
    return [parameter.detach() for parameter in loop.trained().parameters()]


def _hello(job: Job, given: argparse.Namespace) -> dict[str, Any]:
    return {
        "kind": "setup",
        "ranks": job.world_size,
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(job.device) if job.device.type == "cuda" else "cpu",
        "backend": dist.get_backend(),
        "parameters": sum(parameter.numel() for parameter in job.model().parameters()),
        "warmup_steps": _WARMUP,
    }


def _arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    for flag in ("--loops", "--feeds", "--device"):
        parser.add_argument(flag, required=True)
    for flag in ("--batch", "--width", "--seed", "--first", "--rounds", "--steps", "--threads"):
        parser.add_argument(flag, type=int, required=True)
    return parser.parse_args(argv)
