"""Lengths of time on the command line. Pure."""

from __future__ import annotations

import re

from dtk_launch.errors import PlanError

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_LENGTH = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)?")


def parse_seconds(flag: str, text: str, where: str = "") -> float:
    """`500ms`, `20s`, `2m`, `1h`, or a number of seconds, as seconds above 0. Raises PlanError."""
    match = _LENGTH.fullmatch(text.strip())
    seconds = float(match[1]) * _UNITS[match[2] or "s"] if match else 0.0
    if seconds <= 0:
        given = f" ({where})" if where else ""
        raise PlanError(f"{flag}={text!r}{given} is no length of time; pass for example 500ms, 20s, 2m or 1h")
    return seconds
