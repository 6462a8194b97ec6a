"""What each rank runs: every case is checked once, then all take turns."""

from __future__ import annotations

import argparse
import math
import os
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.distributed as dist
from bench_parts.channel import report_to_driver
from bench_parts.group import Ranks
from bench_parts.machine import busy_core_seconds
from bench_parts.nodes import boot_number, interfaces, reports

from .calls import Buffers, Call, Members, is_right, make_call
from .cases import Case, all_cases, elements, scopes, turns
from .groups import make_groups
from .tables import DTYPES

Send = Callable[[Mapping[str, Any]], None]

_BLOCK = 0.05  # seconds of a block, about
_FEWEST, _MOST = 2, 2000  # operations in a block
_WARM = 5  # operations before the first is timed, as many as in nccl-tests
_IDLE = 0.25  # seconds in which the ranks do nothing, to see what others do


def main(argv: list[str]) -> None:
    """Measure, and tell the driver what was seen."""
    given = _arguments(argv)
    device = torch.device("cpu")
    if "nccl" in given.backends:
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    ranks = Ranks(device)
    channel = report_to_driver() if reports() else None
    try:
        send: Send = (lambda _: None) if channel is None else channel.send
        Measurement(given, ranks, send).run()
        ranks.all_here()
    finally:
        if channel is not None:
            channel.close()
        dist.destroy_process_group()


class Measurement:
    """The cases of a run, in the ranks."""

    def __init__(self, given: argparse.Namespace, ranks: Ranks, send: Send) -> None:
        """Make the groups and the buffers. Collective."""
        self._given, self._ranks, self._send = given, ranks, send
        self._one_machine = self._on_one_machine()
        among = scopes(given.nodes, given.nproc)
        self._groups = {backend: make_groups(backend, among, given.nproc) for backend in given.backends}
        most = given.sizes[-1] // DTYPES[given.dtype]
        dtype = getattr(torch, given.dtype)
        self._buffers = {
            backend: Buffers(most, dtype, torch.device("cpu") if backend == "gloo" else ranks.device)
            for backend in given.backends
        }

    def run(self) -> None:
        """Check, warm up, then all rounds. Collective."""
        self._send(self._hello())
        known = dict(pair.split("=") for pair in self._given.known.split(",") if pair)
        calls: dict[Case, tuple[Call, int]] = {}
        lacking: set[tuple[str, str, str]] = set()
        for number, case in enumerate(self._cases()):
            if (case.backend, case.scope, case.operation) in lacking:
                continue
            try:
                call, iterations = self._prepare(case, int(known.get(str(number), 0)))
            except (RuntimeError, NotImplementedError) as error:
                if not _is_lacking(error):
                    raise
                lacking.add((case.backend, case.scope, case.operation))
                self._send({"kind": "left_out", **vars(case), "why": str(error).splitlines()[0]})
                continue
            calls[case] = call, iterations
        self._take_turns(calls)

    def _take_turns(self, calls: Mapping[Case, tuple[Call, int]]) -> None:
        shown = 0
        for number, (turn, case) in enumerate(turns(list(calls), self._given.rounds, self._given.seed)):
            if number < self._given.skip:
                continue
            if turn != shown:
                self._look(turn)
                shown = turn
            call, iterations = calls[case]
            slowest, mean = self._time(call, iterations, self._device(case))
            self._send(
                {"kind": "block", "round": turn, **vars(case), "iterations": iterations,
                 "seconds": slowest, "mean_seconds": mean}
            )  # fmt: skip

    def _prepare(self, case: Case, iterations: int) -> tuple[Call, int]:
        """The call, and how many of it make a block, unless that is known; with a result that was compared."""
        members = self._members(case)
        count = elements(case.size, DTYPES[self._given.dtype], members.size)
        buffers, device = self._buffers[case.backend], self._device(case)
        right = self._ranks.total(float(not is_right(case.operation, buffers, count, members))) == 0
        call = make_call(case.operation, buffers, count, members)
        first, _ = self._time(call, 1, device)
        if first < _BLOCK:
            self._time(call, _WARM, device)
        if not iterations:
            iterations = self._given.iterations
        if not iterations:
            seconds, _ = self._time(call, 1 if first > _BLOCK else _WARM, device)
            iterations = max(_FEWEST, min(_MOST, math.ceil(_BLOCK / seconds)))
        self._send(
            {"kind": "case", **vars(case), "ranks": members.size, "bytes": count * DTYPES[self._given.dtype],
             "iterations": iterations, "right": right}
        )  # fmt: skip
        return call, iterations

    def _time(self, call: Call, iterations: int, device: torch.device) -> tuple[float, float]:
        """Seconds of one of `iterations` calls in a row: of the slowest rank, and the mean over ranks. Collective."""
        self._ranks.all_here()
        start = time.perf_counter()
        for _ in range(iterations):
            call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds = (time.perf_counter() - start) / iterations
        return self._ranks.largest(seconds), self._ranks.total(seconds) / self._ranks.size

    def _look(self, turn: int) -> None:
        """What others do while no rank does anything; of several machines it is not said. Collective."""
        self._ranks.all_here()
        before, start = busy_core_seconds(), time.perf_counter()
        if self._ranks.rank == 0:
            time.sleep(_IDLE)
        self._ranks.all_here()
        after, seconds = busy_core_seconds(), time.perf_counter() - start
        alone = self._given.nodes == 1 or self._one_machine
        if alone and before is not None and after is not None:
            self._send({"kind": "idle", "round": turn, "others_cores": round((after - before) / seconds, 3)})

    def _cases(self) -> list[Case]:
        given = self._given
        return all_cases(given.backends, given.nodes, given.nproc, given.operations, given.sizes)

    def _members(self, case: Case) -> Members:
        return self._groups[case.backend][case.scope]

    def _device(self, case: Case) -> torch.device:
        return self._buffers[case.backend].source.device

    def _on_one_machine(self) -> bool:
        """Whether all nodes run on one kernel, as containers do, so that no network is between them. Collective."""
        mine = boot_number()
        return mine != 0 and self._ranks.largest(mine) == -self._ranks.largest(-mine)

    def _hello(self) -> dict[str, Any]:
        device = self._ranks.device
        cuda = device.type == "cuda"
        return {
            "kind": "setup",
            "ranks": self._ranks.size,
            "nodes": self._given.nodes,
            "one_machine": self._one_machine,
            "threads": torch.get_num_threads(),
            "device": torch.cuda.get_device_name(device) if cuda else "cpu",
            "nccl": ".".join(map(str, torch.cuda.nccl.version())) if cuda else None,
            "interfaces": interfaces(),
        }


def _is_lacking(error: Exception) -> bool:
    """Whether a backend says that it has no such operation, or not for this type of number: all ranks alike."""
    text = str(error).lower()
    return isinstance(error, NotImplementedError) or any(
        words in text for words in ("not support", "unsupported", "not implemented", "invalid scalar type")
    )


def _arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    names = {"backends": str, "operations": str, "sizes": int}
    for name, kind in names.items():
        parser.add_argument(f"--{name}", type=lambda text, kind=kind: tuple(map(kind, text.split(","))), required=True)
    for name in ("nproc", "nodes", "rounds", "iterations", "seed", "skip"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--dtype", choices=DTYPES, required=True)
    parser.add_argument("--known", required=True, help="number of a case=iterations of it, of a run that is resumed")
    return parser.parse_args(argv)
