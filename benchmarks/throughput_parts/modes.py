"""The processes of each strategy: started together, asked in turn, and ended whatever happens."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from bench_parts.channel import Channel, Meeting
from bench_parts.processes import (
    ANSWER_LIMIT,
    END_GRACE,
    POLL,
    START_LIMIT,
    ProcessFailed,
    Started,
    clean_environment,
    temporary_folder,
)

from .arguments import Options
from .tables import STRATEGIES

_RANK = Path(__file__).resolve().parent.parent / "_throughput_rank.py"


class Mode:
    """One strategy on one model: its processes, blocked until they are asked."""

    def __init__(self, strategy: str, model: str, process: Started) -> None:
        self.strategy, self._model, self._process = strategy, model, process
        self.hello: dict[str, Any] = {}
        self._channel: Channel | None = None

    def connect(self, channel: Channel, hello: dict[str, Any]) -> None:
        """Take over the connection of this strategy's rank 0."""
        self._channel, self.hello = channel, hello

    def train(self, steps: int) -> dict[str, Any]:
        """Train this many steps, while everything else waits; what was measured."""
        assert self._channel is not None
        try:
            self._channel.send({"do": "train", "steps": steps})
            if not self._channel.ready(ANSWER_LIMIT):
                raise self.failure(f"did not train {steps} steps in {ANSWER_LIMIT:.0f} s")
            return self._channel.receive()
        except (EOFError, OSError):
            raise self.failure("failed") from None

    def check(self) -> None:
        """Raise ProcessFailed where the process has ended."""
        if self._process.has_ended():
            raise self.failure("failed at its start")

    def failure(self, what: str) -> ProcessFailed:
        """The error to raise; its logs are kept beside the results."""
        message = f"{self.strategy} on {self._model} {what}"
        return self._process.failure(message, strategy=self.strategy, model=self._model)

    def ask_to_end(self, kindly: bool) -> None:
        """Without waiting: by message, or by signal (a block under way is then not finished)."""
        if kindly and self._channel is not None:
            with suppress(OSError):
                self._channel.send({"do": "stop"})
        else:
            self._process.send(signal.SIGTERM)

    def end(self, deadline: float) -> None:
        """Wait until the process has ended, and kill it (and with it all it started) at `deadline`."""
        try:
            self._process.end(deadline)
        finally:
            if self._channel is not None:
                self._channel.close()


@contextmanager
def running(options: Options, model: str) -> Iterator[list[Mode]]:
    """All strategies on one model, ready to train and idle. Afterwards none of their processes is left.

    Raises:
        ProcessFailed: one of them did not start.
    """
    with temporary_folder() as folder:
        meeting = Meeting(folder)
        modes: list[Mode] = []
        kindly = False
        try:
            for strategy in options.strategies:
                modes.append(_start(options, model, strategy, folder / strategy, meeting.environment))
            _wait_for_all(modes, meeting)
            yield modes
            kindly = True
        finally:
            meeting.close()
            _end_all(modes, kindly)


def _end_all(modes: list[Mode], kindly: bool) -> None:
    deadline = time.monotonic() + END_GRACE
    try:
        for mode in modes:
            mode.ask_to_end(kindly)
        for mode in modes:
            mode.end(deadline)
    finally:  # a second Ctrl-C comes here
        for mode in modes:
            mode.end(0.0)


def _start(options: Options, model: str, strategy: str, home: Path, reach: Mapping[str, str]) -> Mode:
    home.mkdir()
    environment = rank_environment(os.environ, options, strategy) | reach
    process = Started(command(options, model, strategy, home / "run"), home, environment, options.out / "failed")
    return Mode(strategy, model, process)


def command(options: Options, model: str, strategy: str, run_dir: Path) -> list[str]:
    """What starts a strategy: one process, or `dtk launch` with its ranks."""
    words = [str(_RANK), strategy, model]
    words += ["--global-batch-size", str(options.batches[model]), "--seed", str(options.seed)]
    words += ["--threads", str(options.threads(strategy)), "--gpus", str(options.gpus)]
    if not STRATEGIES[strategy].launched:
        return [sys.executable, *words]
    launch = ["-m", "dtk_launch", "launch", "--nproc", str(options.nproc), "--run-dir", str(run_dir)]
    return [sys.executable, *launch, "--strategy", STRATEGIES[strategy].engine, "--device", options.device, *words]


def rank_environment(environ: Mapping[str, str], options: Options, strategy: str) -> dict[str, str]:
    """The caller's, cleaned, with the strategy's threads and the device."""
    return clean_environment(environ, options.threads(strategy)) | {"DTK_DEVICE": options.device}


def _wait_for_all(modes: list[Mode], meeting: Meeting) -> None:
    deadline = time.monotonic() + START_LIMIT
    missing = {mode.strategy: mode for mode in modes}
    while missing:
        for mode in missing.values():
            mode.check()
            if time.monotonic() > deadline:
                raise mode.failure(f"was not ready after {START_LIMIT:.0f} s")
        channel = meeting.accept(POLL)
        if channel is not None:
            hello = channel.receive()
            missing.pop(hello.pop("strategy")).connect(channel, hello)
