"""A command that is measured: apart from the terminal, whose Ctrl-C is for the benchmark, and ended with it."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from bench_parts.processes import END_GRACE, ProcessFailed

_LAST_LINES = 20


def start(words: Sequence[str], cwd: Path, stderr: int = subprocess.DEVNULL) -> subprocess.Popen[str]:
    """Start it in a session of its own. Raises ProcessFailed if that cannot be."""
    silent = subprocess.DEVNULL
    try:
        return subprocess.Popen(
            words, cwd=cwd, stdin=silent, stdout=silent, stderr=stderr, start_new_session=True,
            text=True, errors="replace",
        )  # fmt: skip
    except OSError as error:
        raise ProcessFailed(f"{words[0]} cannot be started ({error.strerror})") from None


def end(process: subprocess.Popen[str]) -> None:
    """End it unless it is gone: with SIGTERM, so that it ends what it started, then with SIGKILL."""
    try:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(END_GRACE)
    finally:  # a second Ctrl-C comes here
        process.kill()
        process.wait()


def run(words: Sequence[str], cwd: Path) -> None:
    """Run it to its end. Raises ProcessFailed with its last words unless its exit code is 0."""
    process = start(words, cwd, stderr=subprocess.PIPE)
    try:
        _, said = process.communicate()
    finally:
        end(process)
    if process.returncode:
        tail = "\n".join(f"  {line}" for line in said.splitlines()[-_LAST_LINES:])
        raise ProcessFailed(
            f"`{shlex.join(words)}` ended with exit code {process.returncode}. The end of the output:\n"
            f"{tail or '(no output)'}",
            process.returncode,
        )
