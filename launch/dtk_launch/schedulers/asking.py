"""Starts the scheduler's programs, for the commands about jobs."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from dtk_launch.schedulers.base import Scheduler

_PATIENCE = 60  # seconds for a controller that is busy


@dataclass(frozen=True)
class Answer:
    """What a program said. `returncode` None: it could not be started, or did not answer within a minute."""

    returncode: int | None
    stdout: str
    stderr: str

    @property
    def words(self) -> str:
        """What it said of a failure."""
        return self.stderr.strip() or self.stdout.strip()


def ask(command: Sequence[str], text: str = "", patience: float | None = _PATIENCE) -> Answer:
    """Run a command with `text` as its input. `patience` in seconds; None: for as long as it takes."""
    try:
        done = subprocess.run(
            command, input=text, capture_output=True, text=True, errors="replace", check=False, timeout=patience
        )
    except subprocess.TimeoutExpired:
        return Answer(None, "", f"{command[0]} gave no answer within {patience:g} seconds")
    except FileNotFoundError:
        return Answer(None, "", f"no {command[0]} on PATH; run this on a login node of the cluster")
    except OSError as error:
        return Answer(None, "", f"{command[0]} cannot be started here: {error.strerror}")
    return Answer(done.returncode, done.stdout, done.stderr)


def failure(said: Answer, scheduler: Scheduler) -> str:
    """Why a question was not answered, in the program's words and with what they mean."""
    return said.words if said.returncode is None else scheduler.explained(said.words)


def become(command: Sequence[str]) -> NoReturn:
    """Go on as this command, with this terminal. Raises OSError if it cannot be started."""
    os.execvp(command[0], list(command))
