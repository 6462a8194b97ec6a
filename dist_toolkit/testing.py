"""Run a function on real ranks, for tests: yours and this project's own."""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import multiprocessing.connection
import os
import pickle
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dist_toolkit.errors import DistToolkitError

_GRACE = 10.0
"""Seconds that the other ranks have to end after the first one failed."""

_PRELOAD = ["dist_toolkit.runtime", "dist_toolkit.strategies.ddp", "torch._dynamo"]
"""What the server imports, and no rank again: torch imports its compiler when the first optimizer is made."""


@dataclass(frozen=True)
class Outcome:
    """How one rank ended.

    Attributes:
        exitcode: as in multiprocessing: 0, the code of sys.exit, or minus the number of the signal.
        value: what the function returned.
        error: the traceback, where an exception ended it.
    """

    exitcode: int
    value: Any = None
    error: str | None = None


class RanksFailed(DistToolkitError, AssertionError):
    """Not every rank returned.

    Attributes:
        outcomes: how each rank ended, by rank.
    """

    def __init__(self, outcomes: Sequence[Outcome]) -> None:
        self.outcomes = tuple(outcomes)
        parts = [
            f"rank {r}: exit code {o.exitcode}\n{o.error or ''}"
            for r, o in enumerate(outcomes)
            if o.exitcode or o.error
        ]
        super().__init__("\n".join(parts))


class Ranks:
    """Ranks that are running."""

    def __init__(
        self, processes: Sequence[Any], pipes: Sequence[multiprocessing.connection.Connection], folder: Any
    ) -> None:
        self.processes, self._pipes, self._folder = processes, pipes, folder

    def wait(self, timeout: float) -> list[Outcome]:
        """How each rank ended. After a failure the others get ten seconds; after `timeout` all are killed."""
        answers: dict[int, Any] = {}
        deadline = time.monotonic() + timeout
        try:
            while len(answers) < len(self.processes) and time.monotonic() < deadline:
                for rank in self._ready(answers, deadline):
                    answers[rank] = self._answer(rank)
                    if answers[rank][1] is not None:
                        deadline = min(deadline, time.monotonic() + _GRACE)
            for process in self.processes:
                process.join(max(0.0, deadline - time.monotonic()))
        finally:
            self.kill()
        lost = (None, "did not end in time and was killed")
        return [self._outcome(rank, answers.get(rank, lost)) for rank in range(len(self.processes))]

    def kill(self) -> None:
        """SIGKILL whatever is still running, and forget the rendezvous."""
        for process in self.processes:
            if process.is_alive():
                process.kill()
            process.join()
        self._folder.cleanup()

    def _ready(self, answers: Mapping[int, Any], deadline: float) -> list[int]:
        """Ranks that have answered or ended. The end of the process counts, not of its pipe: loader workers hold that
        open after their rank was killed."""
        waiting = {
            rank: (self._pipes[rank], p.sentinel) for rank, p in enumerate(self.processes) if rank not in answers
        }
        sources = [source for pair in waiting.values() for source in pair]
        ready = multiprocessing.connection.wait(sources, max(0.0, deadline - time.monotonic()))
        return [rank for rank, pair in waiting.items() if any(source in ready for source in pair)]

    def _answer(self, rank: int) -> tuple[Any, str | None]:
        with contextlib.suppress(EOFError):
            if self._pipes[rank].poll():
                answer: tuple[Any, str | None] = pickle.loads(self._pipes[rank].recv_bytes())
                return answer
        return None, "ended without a word"

    def _outcome(self, rank: int, answer: tuple[Any, str | None]) -> Outcome:
        return Outcome(self.processes[rank].exitcode, *answer)


def start_ranks(function: Callable[..., Any], nproc: int, *args: Any, env: Mapping[str, str] | None = None) -> Ranks:
    """Start `function(*args)` on `nproc` ranks of this machine's CPU, and return at once.

    The function and its arguments must be picklable (a function at the top of a module). Each rank is a process of its
    own that finds RANK, WORLD_SIZE and a rendezvous in its environment, so `dtk.init()` works as under a launcher. The
    ranks are forked from a server process that has imported torch once, so starting them takes a fraction of a second.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOAD)
    folder = tempfile.TemporaryDirectory(prefix="dtk-ranks-")
    processes, pipes = [], []
    for rank in range(nproc):
        receiver, sender = context.Pipe(duplex=False)
        variables = {**os.environ, **_rank_env(rank, nproc, folder.name), **(env or {})}
        place = _Place(variables, os.getcwd(), multiprocessing.get_start_method())
        process = context.Process(target=_rank_main, args=(function, args, place, sender), daemon=False)
        process.start()
        sender.close()
        processes.append(process)
        pipes.append(receiver)
    return Ranks(processes, pipes, folder)


def run_ranks(
    function: Callable[..., Any], nproc: int, *args: Any, timeout: float = 120.0, env: Mapping[str, str] | None = None
) -> list[Any]:
    """What `function(*args)` returned on each of `nproc` ranks, by rank; see `start_ranks`.

    Raises:
        RanksFailed: a rank raised, was killed, or did not end within `timeout` seconds; says how every rank ended.
    """
    outcomes = start_ranks(function, nproc, *args, env=env).wait(timeout)
    if any(outcome.exitcode or outcome.error for outcome in outcomes):
        raise RanksFailed(outcomes)
    return [outcome.value for outcome in outcomes]


def _rank_env(rank: int, nproc: int, folder: str) -> dict[str, str]:
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(nproc),
        "LOCAL_WORLD_SIZE": str(nproc),
        "GROUP_RANK": "0",
        "GROUP_WORLD_SIZE": "1",
        "DTK_INIT_METHOD": f"file://{Path(folder) / 'rendezvous'}",
        "DTK_DEVICE": "cpu",
    }


@dataclass(frozen=True)
class _Place:
    """What a rank is given of the process that starts it; a forked server's child has only the server's own."""

    env: Mapping[str, str]
    folder: str
    start_method: str

    def enter(self) -> None:
        """Make this process's place the same."""
        os.environ.clear()
        os.environ.update(self.env)
        os.chdir(self.folder)
        # else the rank's own children, its loader workers, would come from a server of theirs, seconds later
        multiprocessing.set_start_method(self.start_method, force=True)


def _rank_main(
    function: Callable[..., Any], args: Sequence[Any], place: _Place, sender: multiprocessing.connection.Connection
) -> None:
    import torch

    gc.freeze()  # what came with the fork: to look through it copies its pages, again and again
    place.enter()
    torch.set_num_threads(1)
    try:
        answer: tuple[Any, str | None] = (function(*args), None)
    except SystemExit:
        raise
    except BaseException:
        answer = (None, traceback.format_exc())
    with contextlib.suppress(BrokenPipeError):
        sender.send_bytes(pickle.dumps(answer))
    if answer[1] is not None:
        raise SystemExit(1)
