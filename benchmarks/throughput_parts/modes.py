"""The processes of each strategy: started together, asked in turn, and ended whatever happens."""

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

from .arguments import Options
from .channel import Channel, Meeting
from .tables import STRATEGIES

_RANK = Path(__file__).resolve().parent.parent / "_throughput_rank.py"
_START_LIMIT = 300.0  # seconds until every rank has imported torch and built the model
_ANSWER_LIMIT = 900.0  # seconds for a block
_END_GRACE = 15.0  # seconds to end after being asked to
_POLL = 0.2
_OUTPUT = "output"
_FOREIGN = ("DTK_", "PET_", "SLURM_", "TORCHELASTIC_", "MASTER_", "GROUP_", "ROLE_", "LOCAL_RANK", "LOCAL_WORLD_SIZE")


class ModeFailed(Exception):
    """A strategy did not do its work. The message ends with the last lines of its output."""

    def __init__(self, strategy: str, model: str, what: str, tail: str) -> None:
        super().__init__(f"{strategy} on {model} {what}. The end of its output:\n{tail or '(no output)'}")
        self.strategy, self.model = strategy, model


class Mode:
    """One strategy on one model: its processes, blocked until they are asked."""

    def __init__(self, strategy: str, model: str, process: subprocess.Popen[bytes], home: Path, keep: Path) -> None:
        self.strategy, self._model, self._process, self._home, self._keep = strategy, model, process, home, keep
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
            if not self._channel.ready(_ANSWER_LIMIT):
                raise self.failure(f"did not train {steps} steps in {_ANSWER_LIMIT:.0f} s")
            return self._channel.receive()
        except (EOFError, OSError):
            raise self.failure("failed") from None

    def check(self) -> None:
        """Raise ModeFailed where the process has ended."""
        if self._process.poll() is not None:
            raise self.failure("failed at its start")

    def failure(self, what: str) -> ModeFailed:
        """The error to raise, with the exit code if there is one within some seconds: the launcher has last words.

        The logs are kept beside the results.
        """
        with suppress(subprocess.TimeoutExpired):
            code = self._process.wait(_END_GRACE)
            what += f" (exit code {code})"
        shutil.rmtree(self._keep, ignore_errors=True)
        shutil.copytree(self._home, self._keep)
        text = (self._home / _OUTPUT).read_text(errors="replace").replace(str(self._home), str(self._keep))
        tail = "\n".join(f"  {line}" for line in text.splitlines()[-40:])
        return ModeFailed(self.strategy, self._model, what, tail)

    def ask_to_end(self, kindly: bool) -> None:
        """Without waiting: by message, or by signal (a block under way is then not finished)."""
        if kindly and self._channel is not None:
            with suppress(OSError):
                self._channel.send({"do": "stop"})
        else:
            self._signal(signal.SIGTERM)

    def end(self, deadline: float) -> None:
        """Wait until the process has ended, and kill it (and with it all it started) at `deadline`."""
        try:
            self._process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            pass
        finally:
            self._signal(signal.SIGKILL)
            self._process.wait()
            if self._channel is not None:
                self._channel.close()

    def _signal(self, signum: int) -> None:
        if self._process.poll() is None:
            hostos.send(self._process.pid, signum)


@contextmanager
def running(options: Options, model: str) -> Iterator[list[Mode]]:
    """All strategies on one model, ready to train and idle. Afterwards none of their processes is left.

    Raises:
        ModeFailed: one of them did not start.
    """
    with tempfile.TemporaryDirectory(prefix="dtk-bench-", dir=_short_folder(), ignore_cleanup_errors=True) as name:
        folder = Path(name)
        meeting = Meeting(folder)
        modes: list[Mode] = []
        kindly = False
        try:
            for strategy in options.strategies:
                modes.append(_start(options, model, strategy, folder, meeting.environment))
            _wait_for_all(modes, meeting)
            yield modes
            kindly = True
        finally:
            meeting.close()
            _end_all(modes, kindly)


def _end_all(modes: list[Mode], kindly: bool) -> None:
    deadline = time.monotonic() + _END_GRACE
    try:
        for mode in modes:
            mode.ask_to_end(kindly)
        for mode in modes:
            mode.end(deadline)
    finally:  # a second Ctrl-C comes here
        for mode in modes:
            mode.end(0.0)


def _start(options: Options, model: str, strategy: str, folder: Path, reach: Mapping[str, str]) -> Mode:
    home = folder / strategy
    home.mkdir()
    parent = os.getpid()

    def in_child() -> None:
        hostos.die_with_parent()
        if os.getppid() != parent:
            os._exit(1)

    with open(home / _OUTPUT, "wb") as output:
        process = subprocess.Popen(
            command(options, model, strategy, home / "run"),
            cwd=home,  # away from any dtk.toml
            env=environment(os.environ, options, strategy) | reach,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # a Ctrl-C of the terminal comes to the driver alone
            preexec_fn=in_child,
        )
    return Mode(strategy, model, process, home, options.out / "failed")


def command(options: Options, model: str, strategy: str, run_dir: Path) -> list[str]:
    """What starts a strategy: one process, or `dtk launch` with its ranks."""
    words = [str(_RANK), strategy, model]
    words += ["--global-batch-size", str(options.batches[model]), "--seed", str(options.seed)]
    words += ["--threads", str(options.threads(strategy)), "--gpus", str(options.gpus)]
    if not STRATEGIES[strategy].launched:
        return [sys.executable, *words]
    launch = ["-m", "dtk_launch", "launch", "--nproc", str(options.nproc), "--run-dir", str(run_dir)]
    return [sys.executable, *launch, "--strategy", STRATEGIES[strategy].engine, "--device", options.device, *words]


def environment(environ: Mapping[str, str], options: Options, strategy: str) -> dict[str, str]:
    """The caller's, without what would make a process part of another run, and with the strategy's threads."""
    kept = {k: v for k, v in environ.items() if not k.startswith(_FOREIGN) and k not in ("RANK", "WORLD_SIZE")}
    threads = str(options.threads(strategy))
    return kept | {"OMP_NUM_THREADS": threads, "PYTHONUNBUFFERED": "1", "DTK_DEVICE": options.device}


def _wait_for_all(modes: list[Mode], meeting: Meeting) -> None:
    deadline = time.monotonic() + _START_LIMIT
    missing = {mode.strategy: mode for mode in modes}
    while missing:
        for mode in missing.values():
            mode.check()
            if time.monotonic() > deadline:
                raise mode.failure(f"was not ready after {_START_LIMIT:.0f} s")
        channel = meeting.accept(_POLL)
        if channel is not None:
            hello = channel.receive()
            missing.pop(hello.pop("strategy")).connect(channel, hello)


def _short_folder() -> str | None:
    """Where to make the temporary folder: the path of a socket has to fit in 104 bytes (macOS; Linux: 108)."""
    return None if len(tempfile.gettempdir()) < 70 else "/tmp"
