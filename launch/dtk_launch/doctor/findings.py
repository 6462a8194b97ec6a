"""What a check has found, and how findings of several nodes become one list. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

LEVELS = ("ok", "note", "warning", "problem")
"""From what is as it should be to what will break a run."""
CHECKS = ("versions", "gpus", "network", "ports", "variables", "clock", "filesystem", "limits", "threads", "all-reduce")
"""The families of checks, in the order in which they are shown."""
_MOST_NAMED = 8


@dataclass(frozen=True)
class Finding:
    """`what` was seen, `why` it matters, and the `fix`; what is ok needs no more than `what`.

    `node`: where; '' where it is about all of them, or this machine is the only one.
    """

    check: str
    level: str
    what: str
    why: str = ""
    fix: str = ""
    node: str = ""

    def __post_init__(self) -> None:
        if self.check not in CHECKS or self.level not in LEVELS:
            raise ValueError(f"no finding is {self.check!r} and {self.level!r}")
        if self.level in ("warning", "problem") and not (self.why and self.fix):
            raise ValueError(f"{self.what}: a {self.level} has a why and a fix")


def gather(by_node: Iterable[tuple[str, Sequence[Finding]]]) -> list[Finding]:
    """The findings of all nodes: one that several share is there once, and names them; one of all names none."""
    listed = list(by_node)
    nodes: dict[Finding, list[str]] = {}
    for node, findings in listed:
        for finding in findings:
            nodes.setdefault(replace(finding, node=""), []).append(node)
    return ordered(
        replace(finding, node="" if len(where) == len(listed) else ", ".join(where)) for finding, where in nodes.items()
    )


def ordered(findings: Iterable[Finding]) -> list[Finding]:
    """In the order of the checks, within a check the gravest first."""
    return sorted(findings, key=lambda found: (CHECKS.index(found.check), -LEVELS.index(found.level)))


def gravest(findings: Iterable[Finding]) -> str:
    """The gravest level among them; ok for none."""
    return max((found.level for found in findings), key=LEVELS.index, default="ok")


def exit_code(findings: Iterable[Finding], strict: bool) -> int:
    """1 if something will break a run; with `strict` for a warning, too. Else 0."""
    level = gravest(findings)
    return int(level == "problem" or (strict and level == "warning"))


def differing(values: Iterable[tuple[str, str]]) -> str:
    """`2.14.1 on n1, n2; 2.10.0 on n3` for (node, value) pairs of several values; '' if all are the same."""
    nodes: dict[str, list[str]] = {}
    for node, value in values:
        nodes.setdefault(value, []).append(node)
    if len(nodes) < 2:
        return ""
    return "; ".join(f"{value or 'none'} on {some(where)}" for value, where in nodes.items())


def some(names: Sequence[str]) -> str:
    """The names, of many the first."""
    shown = ", ".join(names[:_MOST_NAMED])
    return shown if len(names) <= _MOST_NAMED else f"{shown} and {len(names) - _MOST_NAMED} more"
