"""Ranks as a driver sees them: started by `dtk launch`, listened to, and ended whatever happens."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .channel import Channel, Meeting
from .nodes import DRIVER_HOST, srun_words
from .processes import ANSWER_LIMIT, END_GRACE, POLL, START_LIMIT, Started, clean_environment, temporary_folder


@contextmanager
def running(
    command: Callable[[Path], Sequence[str]], threads: int, keep: Path, nodes: int = 1, cwd: Path | None = None
) -> Iterator[Iterator[dict[str, Any]]]:
    """The records of the ranks, as they come. Afterwards none of their processes is left.

        The iterator raises ProcessFailed where a rank failed, or is silent for a quarter of an hour.

        Args:
            command: starts them, from their run directory.
            threads: of each rank.
    keep: where their output is copied to if they fail; the folder that it is to be in is there.
        nodes: of them. All see the folder of `keep`.
        cwd: where they are started (default: in a folder of their own).
    """
    with temporary_folder() as folder, _home(folder, keep.parent if nodes > 1 else None) as home:
        meeting = Meeting(folder)
        try:
            environment = clean_environment(os.environ, threads, slurm=nodes > 1)
            environment |= {**meeting.environment, DRIVER_HOST: socket.gethostname()}
            ranks = Started(command(home / "run"), home, environment, keep, cwd)
            try:
                yield _records(ranks, meeting)
            finally:
                ranks.send(signal.SIGTERM)
                ranks.end(time.monotonic() + END_GRACE)
        finally:
            meeting.close()


@contextmanager
def _home(private: Path, shared: Path | None) -> Iterator[Path]:
    """A folder for the ranks: in the driver's own, or where all nodes see it."""
    if shared is None:
        home = private / "ranks"
        home.mkdir()
        yield home
        return
    home = Path(tempfile.mkdtemp(prefix=".ranks-", dir=shared.absolute()))
    try:
        yield home
    finally:
        shutil.rmtree(home, ignore_errors=True)


def launch(nproc: int, run_dir: Path, device: str, script: Path, words: Sequence[str], nodes: int = 1) -> list[str]:
    """`dtk launch` with a benchmark's ranks, `nproc` on each of the nodes; of several, by srun."""
    options = ["--nodes", str(nodes)] if nodes > 1 else []
    options += ["--nproc", str(nproc), "--run-dir", str(run_dir), "--strategy", "ddp", "--device", device]
    return [*srun_words(nodes), sys.executable, "-m", "dtk_launch", "launch", *options, str(script), *words]


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
