"""Starts the programs of a scheduler, and says what they said."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

_PATIENCE = 60  # seconds for a controller that is busy
_DEFAULTS = ("SQUEUE_", "SINFO_")  # a user's filters and columns


@dataclass(frozen=True)
class Answer:
    """What a program said. `returncode` None: it could not be started, or did not answer in time."""

    returncode: int | None
    stdout: str
    stderr: str

    @property
    def words(self) -> str:
        """What it said of a failure."""
        return self.stderr.strip() or self.stdout.strip()


def ask(
    command: Sequence[str],
    text: str = "",
    patience: float | None = _PATIENCE,
    environ: Mapping[str, str] | None = None,
) -> Answer:
    """Run a command with `text` as its input, in the words that every site has (`plain`).

    `patience` in seconds; None: for as long as it takes. `environ`: None for this process's own.
    """
    try:
        done = subprocess.run(
            command,
            input=text,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=patience,
            env=plain(os.environ if environ is None else environ),
        )
    except subprocess.TimeoutExpired:
        return Answer(None, "", f"{command[0]} gave no answer within {patience:g} seconds")
    except FileNotFoundError:
        return Answer(None, "", f"no {command[0]} on PATH; run this on a login node of the cluster")
    except OSError as error:
        return Answer(None, "", f"{command[0]} cannot be started here: {error.strerror}")
    return Answer(done.returncode, done.stdout, done.stderr)


def plain(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables without those by which a user sets how SLURM's programs list jobs and write times."""
    kept = {name: value for name, value in environ.items() if not name.startswith(_DEFAULTS)}
    return kept | {"SLURM_TIME_FORMAT": "standard"}


def become(command: Sequence[str]) -> NoReturn:
    """Go on as this command, with this terminal. Raises OSError if it cannot be started."""
    os.execvp(command[0], list(command))
