"""Findings as text and as JSON. Pure, but for a look at the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from dtk_launch.doctor.findings import CHECKS, Finding, exit_code, some
from dtk_launch.doctor.judging import Examined
from dtk_launch.streams import json_text

FORMAT = 1
_COLOURS = {"ok": "green", "note": "cyan", "warning": "yellow", "problem": "bold red"}
_INDENT = " " * 9
_WIDTH = max(map(len, CHECKS))


def verdict(findings: Sequence[Finding], strict: bool) -> str:
    """The last line."""
    problems, warnings = (sum(found.level == level for found in findings) for level in ("problem", "warning"))
    also = f"{warnings} warning{'s' * (warnings > 1)}" if warnings else ""
    if problems:
        return f"{problems} problem{'s' * (problems > 1)} will break a run{f'; {also}' if also else ''}"
    if warnings and strict:
        return f"nothing found that breaks a run, but {also} (--strict)"
    return f"nothing found that breaks a run{f'; {also}' if also else ''}"


def lines(findings: Sequence[Finding], several: bool) -> Iterator[tuple[str, str]]:
    """(level, line) of the text: one for what is ok of a check, else one for each finding, with its why and its fix."""
    for check in CHECKS:
        of_check = [found for found in findings if found.check == check]
        for found in of_check:
            if found.level != "ok":
                where = f"{some(found.node.split(', '))}: " if found.node and several else ""
                yield found.level, f"{found.level:<8} {check:<{_WIDTH}} {where}{found.what}"
                if found.why:
                    yield "", f"{_INDENT}{'why:':<{_WIDTH}} {found.why}"
                if found.fix:
                    yield "", f"{_INDENT}{'fix:':<{_WIDTH}} {found.fix}"
        if any(found.level == "ok" for found in of_check):
            yield (
                "ok",
                f"{'ok':<8} {check:<{_WIDTH}} {_fine([found for found in of_check if found.level == 'ok'], several)}",
            )


def _fine(findings: Sequence[Finding], several: bool) -> str:
    """Those of all nodes, and the first of those that each node has of its own."""
    own = [found for found in findings if found.node] if several else []
    texts = [found.what for found in findings if found not in own]
    if own:
        others = len(own) - 1 + own[0].node.count(",")
        also = f" ({others} other node{'s are' if others > 1 else ' is'} ok, too)" if others else ""
        texts.append(f"{own[0].node.partition(',')[0]}: {own[0].what}{also}")
    return "; ".join(texts)


def heading(seen: Examined) -> str:
    """What was examined."""
    nodes = seen.nodes[0]
    if len(seen.nodes) > 1:
        nodes = f"{len(seen.nodes)} nodes ({some(seen.nodes)})"
    return f"dtk doctor on {nodes}, run directories in {seen.run_dir}"


def text(seen: Examined, findings: Sequence[Finding], strict: bool) -> str:
    """What is printed; in colours on a terminal alone."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)
    with console.capture() as shown:
        console.print(Text(heading(seen)))
        for level, line in lines(findings, len(seen.nodes) > 1):
            row = Text(line)
            if level:
                row.stylize(_COLOURS[level], 0, len(level))
            console.print(row)
        console.print(Text(verdict(findings, strict)))
    return shown.get().rstrip("\n")


def as_json(seen: Examined, findings: Sequence[Finding], strict: bool) -> str:
    """One object: the findings, and the facts that they were read from."""
    values: dict[str, Any] = {
        "format": FORMAT,
        "exit_code": exit_code(findings, strict),
        "verdict": verdict(findings, strict),
        "nodes": list(seen.nodes),
        "run_dir": seen.run_dir,
        "findings": [asdict(found) for found in findings],
        "facts": {node: asdict(facts) for node, facts in seen.facts.items()},
        "variables": asdict(seen.variables),
        "all_reduce": [dict(line) for line in seen.said.lines if line["stage"] in ("result", "way", "failed")]
        if seen.said
        else None,
    }
    return json_text(values)
