"""Sizes as people write them: `1K:64M`, `1K:64M:2`, `4K,1M`. Pure."""

from __future__ import annotations

import re

from bench_parts.arguments import UsageError

_UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30}
_FACTOR = 4
_MOST = 64
_EXAMPLE = "pass for example 1K:64M, 1K:64M:2 (doubled), or 4K,1M"


def parse_sizes(text: str) -> tuple[int, ...]:
    """Bytes, from the smallest.

    `MIN:MAX` goes from MIN up to MAX by a factor of four, `MIN:MAX:FACTOR` by another; `A,B` are those alone.

    Raises:
        UsageError: it is none of these.
    """
    if ":" not in text:
        sizes = [_one(part, text) for part in text.split(",")]
        if len(set(sizes)) < len(sizes):
            raise UsageError(f"--sizes {text!r} has one size twice; {_EXAMPLE}")
        return tuple(sorted(sizes))
    first, last, *more = text.split(":")
    if len(more) > 1:
        raise UsageError(f"--sizes {text!r} is not MIN:MAX or MIN:MAX:FACTOR; {_EXAMPLE}")
    low, high = _one(first, text), _one(last, text)
    factor = int(more[0]) if more and re.fullmatch(r"[0-9]{1,4}", more[0]) else 0 if more else _FACTOR
    if factor < 2:
        raise UsageError(f"--sizes {text!r}: the factor {more[0]!r} is not a whole number of 2 or more; {_EXAMPLE}")
    if low > high:
        raise UsageError(f"--sizes {text!r}: {first} is more than {last}; {_EXAMPLE}")
    sizes = [low]
    while sizes[-1] * factor <= high:
        sizes.append(sizes[-1] * factor)
    return tuple(sizes)


def _one(text: str, whole: str) -> int:
    match = re.fullmatch(r"([0-9]{1,12})\s*([kmg]?)(i?b)?", text.strip().lower())
    if match is None or int(match[1]) == 0:
        raise UsageError(f"--sizes {whole!r}: {text.strip()!r} is no size; {_EXAMPLE}")
    return int(match[1]) * _UNITS[match[2]]


def check_few(sizes: tuple[int, ...]) -> None:
    """Raises UsageError for more sizes than a report can show."""
    if len(sizes) > _MOST:
        raise UsageError(f"--sizes has {len(sizes)} sizes, more than {_MOST}; pass a larger factor, as in 1K:64M:4")
