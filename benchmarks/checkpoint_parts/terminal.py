"""What a person sees of this benchmark."""

from __future__ import annotations

from bench_parts import terminal
from bench_parts.markdown import NOTHING
from bench_parts.records import Record, Records
from bench_parts.spreads import interval

from .arguments import Options
from .summary import MethodSummary, summarise
from .tables import BASELINE, COPY


class Progress(terminal.Progress):
    """The method and the number of the round under way."""

    def __init__(self, options: Options) -> None:
        super().__init__()
        self._rounds, self._shown = options.rounds, (-1, "")

    def record(self, record: Record) -> None:
        """Show where the ranks are."""
        if record["kind"] == "left_out":
            self.line(f"left out: {record['method']} ({record['why']})")
        elif record["kind"] == "setup":
            self.update("warming up ...")
        elif record["kind"] == "block" and self._is_news(record):
            number = record["round"]
            words = f"round {number} of {self._rounds}" if number else "a round of warm-up"
            self.update(f"{words}: {record['case']}")
            self._shown = (number, record["case"])
        if record.get("same") is False:
            self.line(f"{record['method']} did not give back what was saved ({record['case']})")

    def _is_news(self, record: Record) -> bool:
        return (record["round"], record["case"]) != self._shown


def show(records: Records) -> None:
    """Print times and rates."""
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for head in ("state", "method"):
        table.add_column(head, no_wrap=True)
    heads = ("save ms", f"rate / {BASELINE} (95 %)", "stall ms", f"/ {COPY}", "load ms", f"rate / {BASELINE} (95 %)")
    for head in (*heads, "bytes"):
        table.add_column(head, justify="right", no_wrap=True)
    summary = summarise(records)
    if not summary.cases:
        print(NOTHING)
    for case in summary.cases:
        for method in case.methods:
            table.add_row(case.case, *_cells(method))
    terminal.print_table(table)


def _cells(method: MethodSummary) -> tuple[str, ...]:
    stall, times = method.stall_ms, method.stall
    return (
        method.method,
        *_times(method, "save"),
        f"{stall.median:.1f}" if stall else "",
        f"{times.spread.median:.2f}" if times else "",
        *_times(method, "load"),
        {True: "same", False: "[bold red]other[/]", None: ""}[method.same],
    )


def _times(method: MethodSummary, phase: str) -> tuple[str, str]:
    seen = method.phases.get(phase)
    if seen is None:
        return "", ""
    rate = seen.rate
    return (
        f"{seen.ms.median:,.1f}",
        f"[bold]{rate.spread.median:.2f}[/] ({interval(rate)})" if rate else "",
    )
