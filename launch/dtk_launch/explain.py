"""A plan as text: every decision and where it came from, for people and as JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from dtk_launch.plan import LaunchPlan
from dtk_launch.torchrun import Command

_COLUMNS = ("what", "value", "from", "why")


def plan_json(plan: LaunchPlan, command: Command) -> dict[str, Any]:
    """The plan and its command as plain values: what --json prints and plan.json holds."""
    values = asdict(plan) | {"run_dir": str(plan.run_dir)}
    return {"command": command.shell_text(), "argv": list(command.argv), **values, "env": dict(command.env)}


def print_table(plan: LaunchPlan, command: Command) -> None:
    """Print the decisions as a table, then the command."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from dtk_launch.tables import plain

    console = Console(soft_wrap=False, highlight=False)
    if not console.is_terminal:  # a program or a file reads it: a row is a line
        rows = [(_line(row.key), _line(row.value), _line(row.source), _line(row.why)) for row in plan.decisions]
        print(f"{plain(_COLUMNS, rows)}\n{command.shell_text()}")
        return
    table = Table(box=box.SIMPLE, pad_edge=False)
    for heading in _COLUMNS:
        table.add_column(heading, overflow="fold")
    for decision in plan.decisions:
        table.add_row(*(Text(cell) for cell in (decision.key, decision.value, decision.source, decision.why)))
    console.print(table)
    console.print(Text(command.shell_text()), soft_wrap=True)


def _line(text: str) -> str:
    """In one line, whatever is in it."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogateescape").decode() for c in text)
