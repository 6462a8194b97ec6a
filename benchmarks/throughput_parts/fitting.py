"""The largest batch that fits: doubled until it does not, then halved between; without ever filling the memory.

On a GPU a batch fits if torch does not run out of memory. On a CPU running out would end other programs: there the
memory of a batch is predicted from those before, and one that would pass the limit is not tried.
"""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bench_parts.processes import ProcessFailed

from .arguments import Options
from .cases import Mode
from .modes import Team, running
from .tables import MODELS, STRATEGIES

LONGEST_STEP = 10.0
"""Seconds: larger batches are not tried, whose steps would take longer."""
_FINE = 16  # the answer is right to one in so many
_SAFE = 0.95  # of the limit


@dataclass(frozen=True)
class Seen:
    """One batch that was tried, and fitted."""

    batch: int
    """Of each process."""
    mib: float
    """Of all processes: resident, or on GPUs that which torch held on the fullest one."""
    seconds: float
    """Of a step."""


@dataclass(frozen=True)
class Fit:
    """The outcome."""

    largest: Seen | None
    """None: not even the first one fitted."""
    ended_by: str
    """`memory`; or `time`: larger ones might fit."""
    tries: int


def search(attempt: Callable[[int], Seen | None], first: int, limit_mib: float | None) -> Fit:
    """Find the largest batch, to one in sixteen.

    Args:
        attempt: tries a batch; None where it does not fit.
        first: batch to begin with.
        limit_mib: none is tried whose memory is predicted to be more; None: no limit but that of `attempt`.
    """
    seen: list[Seen] = []
    tries = 0

    def fits(batch: int) -> bool:
        nonlocal tries
        if limit_mib is not None and predicted(seen, batch) > _SAFE * limit_mib:
            return False
        tries += 1
        found = attempt(batch)
        if found is None or (limit_mib is not None and found.mib > limit_mib):
            return False
        seen.append(found)
        return True

    batch = first
    while fits(batch):
        if 2 * seen[-1].seconds > LONGEST_STEP:
            return Fit(seen[-1], "time", tries)
        batch *= 2
    low, high = batch // 2, batch
    while seen and high - low > max(1, low // _FINE):
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return Fit(seen[-1] if seen else None, "memory", tries)


def predicted(seen: list[Seen], batch: int) -> float:
    """The memory of a batch, on the line through the two largest that were tried; 0 before there are two."""
    if len(seen) < 2:
        return 0.0
    below, above = sorted(seen, key=lambda one: one.batch)[-2:]
    slope = max(0.0, (above.mib - below.mib) / (above.batch - below.batch))
    return above.mib + slope * (batch - above.batch)


def find(options: Options, mode: Mode) -> dict[str, Any]:
    """The record of the largest batch of a mode, alone on the machine.

    Raises:
        ProcessFailed: it failed, and not for want of memory.
    """
    with _Attempts(options, mode) as attempts:
        limit = None if mode.gpus else 1024 * options.room_gib
        share = 1 if STRATEGIES[mode.strategy].launched else mode.nproc
        fit = search(attempts.attempt, MODELS[mode.workload.model].least * share, limit)
    found: dict[str, Any] = {"kind": "fit", **mode.key, "ended_by": fit.ended_by, "tries": fit.tries}
    found["limit_mib"] = limit
    if fit.largest is None:
        return found | {"per_process": None}
    largest = fit.largest
    of_all = largest.batch * mode.processes
    return found | {
        "per_process": largest.batch,
        "global": of_all,
        "mib": largest.mib,
        "step_seconds": largest.seconds,
        "samples_per_s": round(of_all / largest.seconds, 2),
    }


class _Attempts:
    """Tries batches on the processes of a mode, which are started anew after one that did not fit."""

    def __init__(self, options: Options, mode: Mode) -> None:
        self._options, self._mode = options, mode
        self._team: Team | None = None
        self._context: Any = None

    def attempt(self, batch: int) -> Seen | None:
        """See `search`."""
        try:
            answer = self._started().ask("attempt", batch)
        except ProcessFailed as error:
            self._end()
            if not (is_out_of_memory(str(error)) or self._was_killed(error)):
                raise
            shutil.rmtree(self._options.out / "failed" / self._mode.name.replace(" ", "-"), ignore_errors=True)
            return None
        return Seen(batch, answer.get("gpu_reserved_mib", answer["rss_mib"]), answer["step_seconds"])

    def __enter__(self) -> _Attempts:
        return self

    def __exit__(self, kind: Any, value: BaseException | None, trace: Any) -> None:
        self._end(kind, value, trace)

    def _was_killed(self, error: ProcessFailed) -> bool:
        """Whether SIGKILL ended a process under no launcher: the kernel's killer leaves no other trace of it."""
        return not STRATEGIES[self._mode.strategy].launched and error.code == -signal.SIGKILL

    def _started(self) -> Team:
        if self._team is None:
            failed: list[ProcessFailed] = []
            self._context = running(self._options, [self._mode], lambda mode, error: failed.append(error))
            teams = self._context.__enter__()
            if failed:
                raise failed[0]
            (self._team,) = teams
        return self._team

    def _end(self, *error: Any) -> None:
        context, self._context, self._team = self._context, None, None
        if context is not None:
            context.__exit__(*(error or (None, None, None)))


def is_out_of_memory(output: str) -> bool:
    """Whether the end of a failed process's output says that it ran out of memory."""
    text = output.lower().replace("-", " ")
    return any(words in text for words in ("out of memory", "outofmemory", "can't allocate memory", "alloc_cpu"))
