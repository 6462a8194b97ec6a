"""Who runs when: the modes take turns in blocks of equally many steps, in an order that rotates each round."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from statistics import fmean
from typing import Any, Protocol, TypeVar

from bench_parts.processes import ProcessFailed

from .cases import Mode

_MAX_STEPS = 1_000_000
_COLD = 3  # steps of each mode before the first that tells how long one is; two of long steps
_LONG = 4  # blocks that a step takes, from which on it is a long one
_TIMED = (3, 20)  # steps with a clock in them behind a block, at least and at most
_T = TypeVar("_T")


class Team(Protocol):
    """A mode that is ready to train and waits."""

    @property
    def mode(self) -> Mode:
        """What it is."""

    def ask(self, what: str, number: int) -> dict[str, Any]:
        """`train` so many steps, or time the `phases` of so many; what was seen. Raises ProcessFailed."""


class Turns:
    """Modes that take turns; one that fails is told of, and takes none any more."""

    def __init__(self, teams: Sequence[Team], tell: Callable[[Mode, ProcessFailed], None]) -> None:
        self.teams, self._tell = list(teams), tell

    def ask(self, team: Team, what: str, number: int) -> dict[str, Any] | None:
        """What it answers; None where it has failed, now or before."""
        if team not in self.teams:
            return None
        try:
            return team.ask(what, number)
        except ProcessFailed as error:
            self.teams.remove(team)
            self._tell(team.mode, error)
            return None

    def train(self, steps: int) -> list[dict[str, Any]]:
        """One block of each."""
        seen = [self.ask(team, "train", steps) for team in list(self.teams)]
        return [answer for answer in seen if answer is not None]


def calibrate(turns: Turns, block_seconds: float) -> int:
    """The number of steps that takes about `block_seconds`, averaged over the modes, which all train equally many.

    It is told from a block of at least half as many, behind some that are no measure: first steps allocate, find
    algorithms and sort gradients into buckets.
    """
    for number in range(_COLD):
        seen = turns.train(1)
        if number and seen and fmean(answer["seconds"] for answer in seen) > _LONG * block_seconds:
            break
    steps = 1
    while seen := turns.train(steps):
        mean = fmean(answer["seconds"] for answer in seen)
        wanted = max(1, min(_MAX_STEPS, round(steps * block_seconds / mean)))
        if wanted <= 2 * steps:
            return wanted
        steps = min(steps * 8, wanted)
    return 1


def timed_steps(steps: int) -> int:
    """Steps whose parts are timed, behind a block of `steps`."""
    least, most = _TIMED
    return max(least, min(most, steps // 4))


def measure(
    turns: Turns, steps: int, rounds: int, has: Callable[[Mode, int], bool] = lambda mode, number: False
) -> Iterator[dict[str, Any]]:
    """One record a block, and one of the parts of its steps. Round 0 is a warm-up, which the summary leaves out.

    Args:
        has: whether a block of a mode in a round is there already, and is not to be measured again.
    """
    everyone = list(turns.teams)
    if any(has(team.mode, 0) for team in everyone):  # resumed: the processes are new, and warm up unseen
        turns.train(steps)
    for number in range(rounds + 1):
        for position, team in enumerate(rotated(everyone, number)):
            if has(team.mode, number):
                continue
            seen = turns.ask(team, "train", steps)
            if seen is None:
                continue
            yield {
                "kind": "block",
                **team.mode.key,
                "round": number,
                "warmup": number == 0,
                "position": position,
                "steps": steps,
                **seen,
                "samples_per_s": round(seen["samples"] / seen["seconds"], 2),
            }
            parts = turns.ask(team, "phases", timed_steps(steps)) if number else None
            if parts is not None:
                yield {"kind": "phases", **team.mode.key, "round": number, "steps": timed_steps(steps), **parts}


def rotated(items: Sequence[_T], by: int) -> list[_T]:
    """The items in turn, starting with number `by` (modulo their number)."""
    if not items:
        return []
    start = by % len(items)
    return [*items[start:], *items[:start]]
