"""What each rank runs: all methods are set up in one process group, then they take turns."""

from __future__ import annotations

import argparse
import gc
import os
import random
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from bench_parts.channel import report_to_driver
from bench_parts.group import Ranks
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from . import place
from .methods import Copy, Job, Method, make
from .state import State
from .tables import COPY, METHODS, layout_of

Send = Callable[[Mapping[str, Any]], None]
_WHOLE = ("accelerate", "fabric")


@dataclass
class Turns:
    """One case: its state, and the methods that take turns with it."""

    case: str
    state: State
    methods: Mapping[str, Method]
    copy: Copy


def main(argv: list[str]) -> None:
    """Measure, and tell the driver what was seen."""
    given = _arguments(argv)
    with ExitStack() as cleanup:
        ranks = Ranks(torch.device("cpu"))
        cleanup.callback(dist.destroy_process_group)
        channel = report_to_driver() if ranks.rank == 0 else None
        if channel is not None:
            cleanup.callback(channel.close)
        send: Send = (lambda _: None) if channel is None else channel.send
        mesh = init_device_mesh("cpu", (ranks.size,))
        cases = [_set_up(case, given, ranks, mesh, cleanup) for case in given.cases.split(",")]
        torch.set_num_threads(given.threads)  # whatever a library has made of it
        send(_hello(ranks, cases))
        _measure(ranks, cases, given, send)
        ranks.all_here()


def _set_up(case: str, given: argparse.Namespace, ranks: Ranks, mesh: DeviceMesh, cleanup: ExitStack) -> Turns:
    names = given.methods.split(",")
    layout = layout_of(case, ranks.size, given.mib, given.tensors)
    state = State(layout, ranks.rank, mesh, given.seed, any(name in _WHOLE for name in names))
    methods = {}
    for name in names:
        folder = Path(given.folder) / f"{case}-{name}"
        folder.mkdir(exist_ok=True)
        methods[name] = make(name, Job(state, folder, ranks.rank, ranks.size, cleanup))
    return Turns(case, state, methods, Copy(state))


def _measure(ranks: Ranks, cases: list[Turns], given: argparse.Namespace, send: Send) -> None:
    gc.collect()
    gc.freeze()  # what all methods hold together is not to be searched in the turn of one of them
    draw = random.Random(given.seed)
    mark = 0
    for number in range(given.rounds + 1):
        for turns in cases:
            order = [*turns.methods, COPY]
            draw.shuffle(order)
            if 0 < number < given.first:
                continue
            report = send if number >= given.first else _nowhere  # what is gone on with needs a warm-up, too
            for position, name in enumerate(order):
                mark += 1
                found = {"kind": "block", "case": turns.case, "method": name, "round": number, "warmup": number == 0,
                         "position": position}  # fmt: skip
                if name == COPY:
                    report({**found, "phase": "copy", **_copy(ranks, turns.copy)})
                else:
                    for record in _block(ranks, turns, name, float(mark), given.settle):
                        report({**found, **record})


def _nowhere(record: Mapping[str, Any]) -> None:
    pass


def _copy(ranks: Ranks, copy: Copy) -> dict[str, Any]:
    with ranks.timed() as seen:
        copy.run()
    return seen


def _block(ranks: Ranks, turns: Turns, name: str, mark: float, settle: float) -> list[dict[str, Any]]:
    """One method: save, load, and load again what is no longer in memory; then its files are deleted."""
    method, state = turns.methods[name], turns.state
    state.mark(mark)
    method.before_save()
    records = [{"phase": "save", **_save(ranks, method, state, mark, METHODS[name].background)}]
    records.append({"phase": "load", **_load(ranks, method, state)})
    if hasattr(os, "posix_fadvise"):
        if ranks.rank == 0:
            place.forget(method.folder)
        records.append({"phase": "cold", **_load(ranks, method, state)})
    ranks.all_here()
    if ranks.rank == 0:
        place.empty(method.folder, settle)
    return records


def _save(ranks: Ranks, method: Method, state: State, mark: float, background: bool) -> dict[str, Any]:
    """Times until all ranks have it on disk and, in the background, until training could go on, which changes it."""
    stall = {}
    with ranks.timed() as seen:
        start = time.perf_counter()
        method.save()
        if background:
            ranks.all_here()
            stall = {"stall": round(time.perf_counter() - start, 6)}
            state.mark(-mark)
        method.wait()
    state.mark(mark)
    return {**seen, **stall}


def _load(ranks: Ranks, method: Method, state: State) -> dict[str, Any]:
    method.before_load()
    with ranks.timed() as seen:
        loaded = method.load()
    same = ranks.total(float(state.is_same(loaded))) == ranks.size
    return {**seen, "same": same}


def _hello(ranks: Ranks, cases: list[Turns]) -> dict[str, Any]:
    states = {t.case: {"tensors": t.state.layout.tensors, "bytes": t.state.layout.bytes} for t in cases}
    return {
        "kind": "setup",
        "ranks": ranks.size,
        "threads": torch.get_num_threads(),
        "backend": dist.get_backend(),
        "states": states,
    }


def _arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    for flag in ("--methods", "--cases", "--folder"):
        parser.add_argument(flag, required=True)
    for flag in ("--mib", "--tensors", "--seed", "--first", "--rounds", "--threads"):
        parser.add_argument(flag, type=int, required=True)
    parser.add_argument("--settle", type=float, required=True)
    return parser.parse_args(argv)
