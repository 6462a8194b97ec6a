"""The ranks as the driver sees them: started by `dtk launch`, listened to, and ended whatever happens."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from dtk_launch import hostos
from throughput_parts.channel import Channel, Meeting

from .arguments import Options

_RANK = Path(__file__).resolve().parent.parent / "_overhead_rank.py"
_START_LIMIT = 300.0  # seconds until every rank has imported the libraries
_RECORD_LIMIT = 900.0  # seconds until the next record
_END_GRACE = 15.0
_POLL = 0.2
_FOREIGN = (
    "DTK_", "PET_", "SLURM_", "TORCHELASTIC_", "MASTER_", "GROUP_", "ROLE_", "LOCAL_RANK", "LOCAL_WORLD_SIZE",
    "ACCELERATE_", "LT_",
)  # fmt: skip


class RanksFailed(Exception):
    """A rank did not do its work. The message ends with the last lines of its output."""


class Ranks:
    """All ranks: one process group."""

    def __init__(self, process: subprocess.Popen[bytes], home: Path, keep: Path) -> None:
        self._process, self._home, self._keep = process, home, keep

    def records(self, meeting: Meeting) -> Iterator[dict[str, Any]]:
        """What rank 0 reports, until all ranks have ended.

        Raises:
            RanksFailed: a rank failed, or is silent for a quarter of an hour.
        """
        channel = self._meet(meeting)
        try:
            while True:
                if not channel.ready(_RECORD_LIMIT):
                    raise self._failure(f"reported nothing for {_RECORD_LIMIT:.0f} s")
                try:
                    record = channel.receive()
                except (EOFError, OSError):
                    break
                yield record
        finally:
            channel.close()
        if self._wait(_END_GRACE) != 0:
            raise self._failure("failed")

    def end(self) -> None:
        """End them, and with them all that they started."""
        try:
            if self._process.poll() is None:
                hostos.send(self._process.pid, signal.SIGTERM)
                self._wait(_END_GRACE)
        finally:
            if self._process.poll() is None:
                hostos.send(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def _meet(self, meeting: Meeting) -> Channel:
        deadline = time.monotonic() + _START_LIMIT
        while (channel := meeting.accept(_POLL)) is None:
            if self._process.poll() is not None:
                raise self._failure("failed at their start")
            if time.monotonic() > deadline:
                raise self._failure(f"were not ready after {_START_LIMIT:.0f} s")
        return channel

    def _wait(self, seconds: float) -> int | None:
        with suppress(subprocess.TimeoutExpired):
            return self._process.wait(seconds)
        return None

    def _failure(self, what: str) -> RanksFailed:
        """The error to raise, with the exit code if there is one soon. The logs are kept beside the results."""
        code = self._wait(_END_GRACE)
        if code is not None:
            what += f" (exit code {code})"
        shutil.rmtree(self._keep, ignore_errors=True)
        shutil.copytree(self._home, self._keep)
        text = (self._home / "output").read_text(errors="replace").replace(str(self._home), str(self._keep))
        tail = "\n".join(f"  {line}" for line in text.splitlines()[-40:])
        return RanksFailed(f"the ranks {what}. The end of their output:\n{tail or '(no output)'}")


@contextmanager
def running(options: Options) -> Iterator[Iterator[dict[str, Any]]]:
    """The records of the ranks, as they come. Afterwards none of their processes is left."""
    short = None if len(tempfile.gettempdir()) < 70 else "/tmp"  # the path of a socket has to fit in 104 bytes
    with tempfile.TemporaryDirectory(prefix="dtk-bench-", dir=short, ignore_cleanup_errors=True) as name:
        home = Path(name)
        meeting = Meeting(home)
        try:
            (home / "ranks").mkdir()
            ranks = Ranks(_start(options, home / "ranks", meeting.environment), home / "ranks", options.out / "failed")
            try:
                yield ranks.records(meeting)
            finally:
                ranks.end()
        finally:
            meeting.close()


def _start(options: Options, home: Path, reach: Mapping[str, str]) -> subprocess.Popen[bytes]:
    parent = os.getpid()

    def in_child() -> None:
        hostos.die_with_parent()
        if os.getppid() != parent:
            os._exit(1)

    with open(home / "output", "wb") as output:
        return subprocess.Popen(
            command(options, home / "run"),
            cwd=home,  # away from any dtk.toml
            env=environment(os.environ, options) | reach,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # a Ctrl-C of the terminal comes to the driver alone
            preexec_fn=in_child,
        )


def command(options: Options, run_dir: Path) -> list[str]:
    """`dtk launch` with the ranks of all loops."""
    words = ["--loops", ",".join(options.loops), "--feeds", ",".join(options.feeds), "--device", options.device]
    for name in ("batch", "width", "seed", "rounds", "steps", "threads"):
        words += [f"--{name}", str(getattr(options, name))]
    launch = ["-m", "dtk_launch", "launch", "--nproc", str(options.nproc), "--run-dir", str(run_dir)]
    return [sys.executable, *launch, "--strategy", "ddp", "--device", options.device, str(_RANK), *words]


def environment(environ: Mapping[str, str], options: Options) -> dict[str, str]:
    """The caller's, without what would make a process part of another run, and with the threads of a rank."""
    kept = {k: v for k, v in environ.items() if not k.startswith(_FOREIGN) and k not in ("RANK", "WORLD_SIZE")}
    return kept | {"OMP_NUM_THREADS": str(options.threads), "PYTHONUNBUFFERED": "1"}
