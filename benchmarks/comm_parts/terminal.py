"""What a person sees of this benchmark."""

from __future__ import annotations

from bench_parts import terminal
from bench_parts.markdown import NOTHING
from bench_parts.records import Record, Records
from bench_parts.words import binary, number

from .arguments import Options
from .summary import summarise
from .tables import SCOPES


class Progress(terminal.Progress):
    """The number of the round under way."""

    def __init__(self, options: Options) -> None:
        super().__init__()
        self._rounds, self._shown = options.rounds, 0

    def record(self, record: Record) -> None:
        """Show where the ranks are."""
        if record["kind"] == "left_out":
            self.line(f"left out: {record['operation']} by {record['backend']} ({record['why']})")
        elif record["kind"] == "setup":
            self.update("checking results and warming up ...")
        elif record["kind"] == "block" and record["round"] != self._shown:
            self._shown = record["round"]
            self.update(f"round {self._shown} of {self._rounds}")


def show(records: Records) -> None:
    """Print times and bandwidths."""
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for head in ("backend", "", "operation"):
        table.add_column(head, no_wrap=True)
    for head in ("size", "µs", "algbw GB/s", "busbw GB/s", ""):
        table.add_column(head, justify="right", no_wrap=True)
    summary = summarise(records)
    if not summary.parts:
        print(NOTHING)
    for part in summary.parts:
        for case in part.cases:
            table.add_row(
                part.backend,
                SCOPES[part.scope] if part.ranks > 1 else "one device",
                case.operation,
                binary(case.size),
                number(case.time_us.median),
                number(case.algorithm.median) if case.operation in part.moving else "",
                f"[bold]{number(case.bus.median)}[/]" if part.ranks > 1 else "",
                "" if case.right else "[bold red]wrong[/]",
            )
    terminal.print_table(table)
