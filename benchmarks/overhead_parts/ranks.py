"""The ranks as the driver sees them: started by `dtk launch`, listened to, and ended whatever happens."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench_parts.channel import Channel, Meeting
from bench_parts.processes import (
    ANSWER_LIMIT,
    END_GRACE,
    POLL,
    START_LIMIT,
    Started,
    clean_environment,
    temporary_folder,
)

from .arguments import Options

_RANK = Path(__file__).resolve().parent.parent / "_overhead_rank.py"


@contextmanager
def running(options: Options) -> Iterator[Iterator[dict[str, Any]]]:
    """The records of the ranks, as they come. Afterwards none of their processes is left.

    The iterator raises ProcessFailed where a rank failed, or is silent for a quarter of an hour.
    """
    with temporary_folder() as folder:
        home = folder / "ranks"
        home.mkdir()
        meeting = Meeting(folder)
        try:
            environment = rank_environment(os.environ, options) | meeting.environment
            ranks = Started(command(options, home / "run"), home, environment, options.out / "failed")
            try:
                yield _records(ranks, meeting)
            finally:
                ranks.send(signal.SIGTERM)
                ranks.end(time.monotonic() + END_GRACE)
        finally:
            meeting.close()


def _records(ranks: Started, meeting: Meeting) -> Iterator[dict[str, Any]]:
    """What rank 0 reports, until all ranks have ended."""
    channel = _meet(ranks, meeting)
    try:
        while True:
            if not channel.ready(ANSWER_LIMIT):
                raise ranks.failure(f"the ranks reported nothing for {ANSWER_LIMIT:.0f} s")
            try:
                record = channel.receive()
            except (EOFError, OSError):
                break
            yield record
    finally:
        channel.close()
    if ranks.wait(END_GRACE) != 0:
        raise ranks.failure("the ranks failed")


def _meet(ranks: Started, meeting: Meeting) -> Channel:
    deadline = time.monotonic() + START_LIMIT
    while (channel := meeting.accept(POLL)) is None:
        if ranks.has_ended():
            raise ranks.failure("the ranks failed at their start")
        if time.monotonic() > deadline:
            raise ranks.failure(f"the ranks were not ready after {START_LIMIT:.0f} s")
    return channel


def command(options: Options, run_dir: Path) -> list[str]:
    """`dtk launch` with the ranks of all loops."""
    words = ["--loops", ",".join(options.loops), "--feeds", ",".join(options.feeds), "--device", options.device]
    for name in ("batch", "width", "seed", "rounds", "steps", "threads"):
        words += [f"--{name}", str(getattr(options, name))]
    launch = ["-m", "dtk_launch", "launch", "--nproc", str(options.nproc), "--run-dir", str(run_dir)]
    return [sys.executable, *launch, "--strategy", "ddp", "--device", options.device, str(_RANK), *words]


def rank_environment(environ: Mapping[str, str], options: Options) -> dict[str, str]:
    """The caller's, cleaned, with the threads of a rank."""
    return clean_environment(environ, options.threads)
