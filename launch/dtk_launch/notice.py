"""How long before its time limit a job is told that it will end, and by which signal: the decision. Pure."""

from __future__ import annotations

import math
import re

from dtk_launch.durations import parse_seconds
from dtk_launch.errors import PlanError
from dtk_launch.options import SubmitOptions
from dtk_launch.schedulers.site import minutes

_MARGIN = 30
"""Seconds for what comes after the ranks' own end: SLURM looks every 30 s, dtk tells how they ended, and requeues."""
_SIGNAL = "USR1"  # a script that does not know it goes on to the end of its time
_SBATCH_SECONDS = 60  # of --signal without @
_HEARD = {"TERM": "15", "USR1": "10", "USR2": "12", "INT": "2", "HUP": "1"}


def notice(options: SubmitOptions) -> str:
    """The value of sbatch --signal for a job without one, '' if none is to be written. Raises PlanError."""
    if options.plain:
        return ""  # torchrun would die of it and leave its ranks behind
    grace, limit = parse_seconds("--grace", options.grace), _limit(options)
    given = _given(options)
    seconds: float
    if given is not None:
        name, seconds = _parsed(given)
        _check(f"--sbatch signal={given}", seconds, limit, options.time)
        starts_grace = bool(options.preempt_signal) or name not in ("USR1", "USR2")
        if starts_grace and grace > seconds:
            raise PlanError(
                f"--sbatch signal={given} comes {seconds:g} s before the time limit, but --grace={options.grace} lets "
                f"the ranks take longer; pass signal={name}@{math.ceil(grace) + _MARGIN}, or a shorter --grace"
            )
        return ""
    _check(f"--grace={options.grace}", grace, limit, options.time)
    seconds = grace + _MARGIN if limit is None else max(grace, min(grace + _MARGIN, limit / 2))
    return f"{_SIGNAL}@{math.ceil(seconds)}"


def _limit(options: SubmitOptions) -> float | None:
    """Seconds of --time, None without a limit. SLURM rounds up to minutes."""
    found = minutes(options.time) if options.time else None
    return math.ceil(found) * 60.0 if found else None  # 0 is no limit, too


def _check(what: str, seconds: float, limit: float | None, time: str) -> None:
    if limit is not None and seconds >= limit:
        raise PlanError(
            f"{what} is {seconds:g} s before the end, but --time={time} is only {limit:g} s in all; pass a longer "
            "--time, or less"
        )


def _given(options: SubmitOptions) -> str | None:
    pairs = (pair.removeprefix("--").partition("=") for pair in options.sbatch)
    return next((value for key, _, value in pairs if key == "signal"), None)


def _parsed(value: str) -> tuple[str, int]:
    """`[R:]NAME[@SECONDS]` as (name, seconds). Raises PlanError for what would not reach the ranks."""
    match = re.fullmatch(r"(?:([RB]+):)?(?:SIG)?([A-Z0-9]+)(?:@(\d+))?", value.strip().upper())
    if match is None:
        raise PlanError(f"--sbatch signal={value!r} is none that sbatch can read; pass for example signal=USR1@90")
    where, name, seconds = match.groups()
    name = next((known for known, number in _HEARD.items() if number == name), name)
    if where and "B" in where:
        raise PlanError(f"--sbatch signal={value} tells the batch script alone, not the ranks; leave out the B:")
    if name not in _HEARD:
        raise PlanError(
            f"--sbatch signal={value} would end dtk without a save; pass one of {', '.join(_HEARD)}, such as USR1@90"
        )
    return name, int(seconds) if seconds else _SBATCH_SECONDS
