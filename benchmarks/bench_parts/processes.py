"""The processes that a benchmark starts: apart from any other run, in folders of their own, ended with the driver."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from dtk_launch import hostos

START_LIMIT = 300.0
"""Seconds until every rank has imported what it needs and made its models."""
ANSWER_LIMIT = 900.0
"""Seconds for one block."""
END_GRACE = 15.0
"""Seconds to end after being asked to."""
POLL = 0.2
"""Seconds between two looks at whether a process that is awaited has failed."""

_OUTPUT = "output"
_FOREIGN = (
    "DTK_", "PET_", "SLURM_", "TORCHELASTIC_", "MASTER_", "GROUP_", "ROLE_", "LOCAL_RANK", "LOCAL_WORLD_SIZE",
    "ACCELERATE_", "LT_",
)  # fmt: skip


class ProcessFailed(Exception):
    """Something that was started did not do its work. The message ends with the last lines of its output.

    Attributes:
        code: its exit code, -n where signal n ended it; None where it was none, or is not known.
        where: what it was, for the records.
    """

    def __init__(self, message: str, code: int | None = None, **where: str) -> None:
        super().__init__(message)
        self.code = code
        self.where = where


class Started:
    """A process with a folder of its own, which holds its output and is kept if it fails."""

    def __init__(
        self, command: Sequence[str], home: Path, environment: Mapping[str, str], keep: Path, cwd: Path | None = None
    ) -> None:
        """Start it.

        Args:
            home: its folder, which exists.
            keep: where the folder is copied to if it fails.
            cwd: where it is started (default: in its folder, away from any dtk.toml).
        """
        self._home, self._keep = home, keep
        parent = os.getpid()

        def in_child() -> None:
            hostos.die_with_parent()
            if os.getppid() != parent:
                os._exit(1)

        with open(home / _OUTPUT, "wb") as output:
            self._process = subprocess.Popen(
                command,
                cwd=cwd or home,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # a Ctrl-C of the terminal comes to the driver alone
                preexec_fn=in_child,
            )

    def has_ended(self) -> bool:
        """Whether the process is gone."""
        return self._process.poll() is not None

    def wait(self, seconds: float) -> int | None:
        """The exit code, or None if there is none within this time."""
        with suppress(subprocess.TimeoutExpired):
            return self._process.wait(max(0.0, seconds))
        return None

    def send(self, signum: int) -> None:
        """Send it a signal, unless it is gone."""
        if not self.has_ended():
            hostos.send(self._process.pid, signum)

    def end(self, deadline: float) -> None:
        """Wait until it is gone, and kill it (and with it all it started) at `deadline` of time.monotonic()."""
        try:
            self.wait(deadline - time.monotonic())
        finally:  # a second Ctrl-C comes here
            self.send(signal.SIGKILL)
            self._process.wait()

    def failure(self, what: str, **where: str) -> ProcessFailed:
        """The error to raise, with the exit code if there is one within some seconds: the launcher has last words."""
        code = self.wait(END_GRACE)
        if code is not None:
            what += f" (exit code {code})"
        shutil.rmtree(self._keep, ignore_errors=True)
        shutil.copytree(self._home, self._keep)
        text = (self._home / _OUTPUT).read_text(errors="replace").replace(str(self._home), str(self._keep))
        tail = "\n".join(f"  {line}" for line in text.splitlines()[-40:])
        return ProcessFailed(f"{what}. The end of the output:\n{tail or '(no output)'}", code, **where)


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A new folder, removed afterwards, whose path leaves room for a socket's name (104 bytes on macOS)."""
    short = None if len(tempfile.gettempdir()) < 70 else "/tmp"
    with tempfile.TemporaryDirectory(prefix="dtk-bench-", dir=short, ignore_cleanup_errors=True) as name:
        yield Path(name)


def clean_environment(environ: Mapping[str, str], threads: int, slurm: bool = False) -> dict[str, str]:
    """The caller's, without what would make a process part of another run, and with its number of threads.

    Args:
        slurm: leave it what srun has to know of the job.
    """
    foreign = tuple(prefix for prefix in _FOREIGN if not (slurm and prefix == "SLURM_"))
    names = ("RANK", "WORLD_SIZE", *(["SLURM_EXPORT_ENV"] if slurm else []))  # that one leaves the ranks without PATH
    kept = {k: v for k, v in environ.items() if not k.startswith(foreign) and k not in names}
    return kept | {"OMP_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1"}
