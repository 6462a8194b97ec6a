"""What a person sees of this benchmark."""

from __future__ import annotations

from bench_parts import terminal
from bench_parts.markdown import NOTHING
from bench_parts.records import Record, Records
from bench_parts.spreads import interval

from .arguments import Options
from .summary import LoopSummary, summarise
from .tables import BASELINE, SAME_OPTIONS

_RATIO = "{:.3f}".format


class Progress(terminal.Progress):
    """The number of the round under way."""

    def __init__(self, options: Options) -> None:
        super().__init__()
        self._rounds, self._shown = options.rounds, -1

    def record(self, record: Record) -> None:
        """Show where the ranks are."""
        if record["kind"] == "left_out":
            self.line(f"left out: {record['loop']} ({record['why']})")
        elif record["kind"] == "setup":
            self.update("warming up ...")
        elif record["kind"] == "block" and record["round"] != self._shown:
            self._shown = record["round"]
            self.update(f"round {self._shown} of {self._rounds}" if self._shown else "a round of warm-up ...")


def show(records: Records) -> None:
    """Print the times and the ratios."""
    from rich.table import Table

    summary = summarise(records)
    if not summary.feeds:
        print(NOTHING)
    compared = any(loop.wrapper for feed in summary.feeds for loop in feed.loops)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for head in ("feed", "loop"):
        table.add_column(head, no_wrap=True)
    tuned = (f"time / {SAME_OPTIONS} (95 %)",) if compared else ()
    for head in ("ms a step", f"time / {BASELINE} (95 %)", *tuned, "weights"):
        table.add_column(head, justify="right", no_wrap=True)
    for feed in summary.feeds:
        for loop in feed.loops:
            table.add_row(feed.feed, *_cells(loop, compared))
    terminal.print_table(table)


def _cells(loop: LoopSummary, compared: bool) -> tuple[str, ...]:
    ratio, wrapper = loop.ratio, loop.wrapper
    tuned = f"{wrapper.spread.median:.3f} ({interval(wrapper, _RATIO)})" if wrapper else ""
    return (
        loop.loop,
        f"{loop.step_ms.median:.3f}",
        f"[bold]{ratio.spread.median:.3f}[/] ({interval(ratio, _RATIO)})" if ratio else "",
        *((tuned,) if compared else ()),
        {True: "identical", False: "close", None: ""}[loop.identical],
    )
