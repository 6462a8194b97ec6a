"""What was typed, exported or written, looked at before it means anything. Pure; each function raises PlanError."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from dtk_launch.errors import PlanError
from dtk_launch.options import flag_of

_BOUNDS: Mapping[str, tuple[int, int]] = {
    "node_rank": (0, 99_999),
    "max_restarts": (0, 1_000_000),
    "cpus_per_task": (1, 65_536),
    "max_stalls": (1, 1_000_000),
}


def check_value(name: str, value: Any, where: str) -> None:
    """Refuse what would silently mean something else: an empty value is a shell variable that was not set."""
    words = value if isinstance(value, tuple) else (value,)
    for word in words:
        if isinstance(word, str) and "\0" in word:
            raise PlanError(
                f"{shown(name)}={word!r} ({where}) holds a NUL, which no program can be given; leave it out"
            )
    if isinstance(value, str) and not value.strip():
        raise PlanError(f"{shown(name)} is empty ({where}); give it a value, or leave it out for its default")
    if name in _BOUNDS and isinstance(value, int):
        low, high = _BOUNDS[name]
        if not low <= value <= high:
            more = " or more" if value < low else f" to {high}"
            raise PlanError(f"{shown(name)}={value} ({where}) is out of range; pass {low}{more}")


def check_pairs(name: str, pairs: Iterable[str]) -> None:
    """Refuse two `K=V` of one command line that set one K to different values: which one is meant?"""
    seen: dict[str, str] = {}
    for pair in pairs:
        key = pair.removeprefix("--").partition("=")[0]
        if seen.setdefault(key, pair) != pair:
            raise PlanError(f"{flag_of(name)} {seen[key]} and {flag_of(name)} {pair} set {key} twice; keep one of them")


def check_repeats(name: str, values: tuple[Any, ...]) -> None:
    """Refuse an option that was given twice with different values."""
    if len(set(values)) > 1:
        shown = " and ".join(f"{flag_of(name)}={value}" for value in dict.fromkeys(values))
        raise PlanError(f"{shown} contradict each other; keep one of them")


def with_source(message: str, sources: Mapping[str, str]) -> str:
    """The message, and for options in it that were not typed but exported or written where they come from."""
    more = [
        f"{flag_of(name)} is from {source}"
        for name, source in sources.items()
        if not source.startswith(("flag", "default", "command line")) and source not in message
        if re.search(rf"{flag_of(name)}[= ]", message)
    ]
    return f"{message} ({'; '.join(more)})" if more else message


def whole(text: str) -> bool:
    """Whether it is a number of plain digits; `isdecimal` takes those of every script."""
    return text.isascii() and text.isdecimal()


def shown(name: str) -> str:
    """What the command line calls an option or an argument."""
    return {"script": "SCRIPT", "args": "an argument of the script", "run": "RUN", "folder": "DIR"}.get(
        name, flag_of(name)
    )
