"""What is done about ranks that are stuck: --hang-timeout and --on-hang as values. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from dtk_launch.durations import parse_seconds
from dtk_launch.errors import PlanError
from dtk_launch.options import LaunchOptions

FLOOR = 60.0
"""Seconds without a step before which --hang-timeout auto never looks."""
FIRST = 600.0
"""And before the first steps, which load and compile."""


@dataclass(frozen=True)
class Hang:
    """What is done about ranks that are stuck: `timeout` is auto, off or seconds, `action` report or stop."""

    timeout: str
    action: str

    @property
    def watched(self) -> bool:
        """Whether anybody looks."""
        return self.timeout != "off"

    @property
    def seconds(self) -> float | None:
        """Of silence before a look; None: learned from the steps."""
        return float(self.timeout) if self.timeout not in ("auto", "off") else None


def parse_timeout(asked: str) -> str:
    """`--hang-timeout` as auto, off or a positive number of seconds (`300`, `5m`), or PlanError."""
    if asked in ("auto", "off"):
        return asked
    try:
        seconds = parse_seconds("--hang-timeout", asked)
    except PlanError:
        seconds = 0.0
    if not 0 < seconds < 1e9:
        raise PlanError(f"--hang-timeout={asked}: pass auto, off or a length of time, for example 300, 90s or 5m")
    return f"{seconds:g}"


def decide_hang(options: LaunchOptions, sources: Mapping[str, str], note: Callable[..., None]) -> Hang:
    """What the options ask for; `note` gets the decisions. Raises PlanError."""
    hang = Hang(parse_timeout(options.hang_timeout), options.on_hang)
    why = {
        "auto": f"learned from the steps; {FLOOR:.0f} s at least, {FIRST:.0f} s before the first ones",
        "off": "nobody looks whether ranks are stuck",
    }.get(hang.timeout, "seconds without a step after which the ranks are looked at")
    note("hang_timeout", hang.timeout, sources["hang_timeout"], why)
    if hang.watched:
        note("on_hang", hang.action, sources["on_hang"])
    return hang
