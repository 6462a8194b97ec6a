"""What a command found, to be printed; and how it is refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

FINE, FOUND, REFUSED = 0, 1, 2
"""Exit codes: all is well; damage or a difference was found; the input cannot be used."""


@dataclass(frozen=True)
class Outcome:
    """The exit code, the answer as JSON, and the same as text."""

    code: int
    data: Mapping[str, Any]
    lines: list[str]


class UsageError(Exception):
    """What was asked for cannot be done. One message that says what to do; exit code 2."""
