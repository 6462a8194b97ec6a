"""Whether a version is one that a package's Requires-Python allows: PEP 440's specifiers, of releases. Pure."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable

_CLAUSE = re.compile(r"\s*(===?|!=|~=|<=|>=|<|>)\s*(\d+(?:\.\d+)*)(\.\*)?\s*")
_ORDER: dict[str, Callable[[tuple[int, ...], tuple[int, ...]], bool]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "==": operator.eq, "===": operator.eq,
    "!=": operator.ne,
}  # fmt: skip


def allows(specifiers: str, version: str) -> bool:
    """Whether `version` fits all of `>=3.10,<4` or such; what is not understood is taken as fitting."""
    release = re.match(r"\d+(?:\.\d+)*", version)
    if release is None:
        return True
    return all(_fits(clause, _numbers(release[0])) for clause in specifiers.split(","))


def _fits(clause: str, version: tuple[int, ...]) -> bool:
    found = _CLAUSE.fullmatch(clause)
    if found is None:
        return True
    sign, wanted = found[1], _numbers(found[2])
    if found[3]:  # .*
        same = _padded(version, len(wanted))[: len(wanted)] == wanted
        return {"==": same, "!=": not same}.get(sign, True)
    width = max(len(version), len(wanted))
    version, padded = _padded(version, width), _padded(wanted, width)
    if sign == "~=":
        head = len(wanted) - 1
        return version >= padded and version[:head] == wanted[:head]
    return _ORDER[sign](version, padded)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(".")))


def _padded(numbers: tuple[int, ...], width: int) -> tuple[int, ...]:
    return numbers + (0,) * (width - len(numbers))
