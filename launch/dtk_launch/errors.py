"""Errors of the launcher. Each message says what was set, what it conflicts with, and what to do."""

from __future__ import annotations

from collections.abc import Iterable


class DtkError(Exception):
    """A mistake that the user can correct: printed as one message without a traceback, exit code `exit_code`."""

    exit_code = 2


class ConfigError(DtkError):
    """A value in the environment, in `dtk.toml` or in `[tool.dtk]` cannot be used."""


class PlanError(DtkError):
    """The options do not fit each other, the machine or the allocation; nothing was started."""


class SubmitError(DtkError):
    """The scheduler is not there or refused the job."""

    exit_code = 1


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that `name` is probably meant to be, or None."""
    import difflib

    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return matches[0] if matches else None


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """The message for a name that is not in a table: it lists the known ones and the nearest."""
    names = sorted(known)
    guess = nearest(name, names)
    hint = f"; did you mean {guess}?" if guess else ""
    return f"unknown {kind} {name!r}; known: {', '.join(names)}{hint}"
