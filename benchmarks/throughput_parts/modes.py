"""The processes of each mode: started together, asked in turn, and ended whatever happens."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from .cases import Mode
from .tables import STRATEGIES

Tell = Callable[[Mode, ProcessFailed], None]

_RANK = Path(__file__).resolve().parent.parent / "_throughput_rank.py"


class Team:
    """The processes of one mode, blocked until they are asked."""

    def __init__(self, mode: Mode, process: Started) -> None:
        self.mode, self._process = mode, process
        self.hello: dict[str, Any] = {}
        self._channel: Channel | None = None

    def connect(self, channel: Channel, hello: dict[str, Any]) -> None:
        """Take over the connection of this mode's rank 0."""
        self._channel, self.hello = channel, hello

    def ask(self, what: str, number: int) -> dict[str, Any]:
        """Have all ranks do `what` of training.Trainer, while everything else waits; what was measured.

        Raises:
            ProcessFailed: a rank has ended, or there is no answer within a quarter of an hour.
        """
        assert self._channel is not None
        try:
            self._channel.send({"do": what, "number": number})
            if not self._channel.ready(ANSWER_LIMIT):
                raise self.failure(f"did not answer to {what} {number} in {ANSWER_LIMIT:.0f} s")
            return self._channel.receive()
        except (EOFError, OSError):
            raise self.failure("failed") from None

    def check(self) -> None:
        """Raise ProcessFailed where the process has ended."""
        if self._process.has_ended():
            raise self.failure("failed at its start")

    def failure(self, what: str) -> ProcessFailed:
        """The error to raise; its logs are kept beside the results."""
        return self._process.failure(f"{self.mode.name} {what}")

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
def running(options: Options, modes: Sequence[Mode], tell: Tell) -> Iterator[list[Team]]:
    """The modes that have started, ready to train and idle; `tell` learns of those that have not.

    Afterwards none of their processes is left.
    """
    with temporary_folder() as folder:
        meeting = Meeting(folder)
        teams: list[Team] = []
        kindly = False
        try:
            for number, mode in enumerate(modes):
                teams.append(_start(options, mode, folder / str(number), meeting.environment))
            yield _those_ready(teams, meeting, tell)
            kindly = True
        finally:
            meeting.close()
            _end_all(teams, kindly)


def _end_all(teams: list[Team], kindly: bool) -> None:
    deadline = time.monotonic() + END_GRACE
    try:
        for team in teams:
            team.ask_to_end(kindly)
        for team in teams:
            team.end(deadline)
    finally:  # a second Ctrl-C comes here
        for team in teams:
            team.end(0.0)


def _start(options: Options, mode: Mode, home: Path, reach: Mapping[str, str]) -> Team:
    home.mkdir()
    environment = rank_environment(os.environ, options, mode) | reach
    keep = options.out / "failed" / mode.name.replace(" ", "-")
    return Team(mode, Started(command(options, mode, home / "run"), home, environment, keep))


def command(options: Options, mode: Mode, run_dir: Path) -> list[str]:
    """What starts a mode: one process, or `dtk launch` with its ranks."""
    spec = STRATEGIES[mode.strategy]
    words = [str(_RANK), mode.workload.model, "--size", options.size, "--precision", mode.workload.precision]
    words += ["--strategy", mode.strategy, "--mode", mode.label]
    words += ["--global-batch-size", str(mode.global_batch_size), "--seed", str(options.seed)]
    words += ["--threads", str(mode.threads), "--gpus", str(mode.gpus)]
    if not spec.launched:
        return [sys.executable, *words]
    launch = ["-m", "dtk_launch", "launch", "--nproc", str(mode.nproc), "--run-dir", str(run_dir)]
    return [sys.executable, *launch, "--strategy", spec.engine, "--device", options.device, *words]


def rank_environment(environ: Mapping[str, str], options: Options, mode: Mode) -> dict[str, str]:
    """The caller's, cleaned, with the mode's threads and the device."""
    return clean_environment(environ, mode.threads) | {"DTK_DEVICE": options.device}


def count(model: str, size: str) -> dict[str, Any]:
    """`parameters` and `flops_per_sample` of a model, found in a process that is not measured; {} where that fails."""
    words = [sys.executable, str(_RANK), model, "--size", size, "--count"]
    environment = clean_environment(os.environ, 1) | {"CUDA_VISIBLE_DEVICES": ""}
    try:
        done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=START_LIMIT, check=True)
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return {}
    return found


def _those_ready(teams: Sequence[Team], meeting: Meeting, tell: Tell) -> list[Team]:
    deadline = time.monotonic() + START_LIMIT
    missing = {team.mode.label: team for team in teams}
    while missing:
        for name, team in list(missing.items()):
            try:
                team.check()
                if time.monotonic() > deadline:
                    raise team.failure(f"was not ready after {START_LIMIT:.0f} s")
            except ProcessFailed as error:
                tell(missing.pop(name).mode, error)
        channel = meeting.accept(POLL)
        if channel is not None:
            hello = channel.receive()
            missing.pop(hello.pop("mode")).connect(channel, hello)
    return [team for team in teams if team.hello]
