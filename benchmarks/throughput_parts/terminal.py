"""What a person sees: one line of progress, in place on a terminal, and the table at the end."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

from .arguments import Options
from .summary import ModelSummary


class Progress:
    """Progress on stderr: one line that is overwritten on a terminal; elsewhere a line a round."""

    def __init__(self, options: Options) -> None:
        self._rounds, self._strategies = options.rounds, len(options.strategies)
        self._live = sys.stderr.isatty()
        self._rates: dict[str, str] = {}

    def update(self, text: str) -> None:
        """Show what happens now."""
        if self._live:
            width = shutil.get_terminal_size().columns - 1
            sys.stderr.write(f"\r\x1b[2K{text[:width]}")
            sys.stderr.flush()
        else:
            self.line(text)

    def line(self, text: str) -> None:
        """Print a line that stays."""
        print(f"\r\x1b[2K{text}" if self._live else text, file=sys.stderr, flush=True)

    def block(self, block: Mapping[str, Any]) -> None:
        """Show a block that was measured."""
        if block["warmup"] and block["position"] == 0:
            self._rates = {}
        self._rates[block["strategy"]] = f"{block['strategy']} {block['samples_per_s']:,.0f}"
        number = "warm-up" if block["warmup"] else f"round {block['round']} of {self._rounds}"
        text = f"{block['model']}: {number}   {'   '.join(self._rates.values())}   samples/s"
        if self._live or block["position"] == self._strategies - 1:
            self.update(text)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            sys.stderr.write("\r\x1b[2K")
            sys.stderr.flush()


def show(summary: Sequence[ModelSummary]) -> None:
    """Print the table on stdout, in colour on a terminal."""
    from rich.console import Console
    from rich.table import Table

    table = Table("model", "strategy", "ranks", box=None, header_style="bold", pad_edge=False)
    table.add_column("samples/s (quartiles)", justify="right", no_wrap=True)
    table.add_column("ratio (quartiles)", justify="right", no_wrap=True)
    for model in summary:
        for mode in model.modes:
            rate, ratio = mode.samples_per_s, mode.ratio
            table.add_row(
                model.model,
                mode.strategy,
                str(mode.ranks),
                f"[bold]{rate.median:,.0f}[/] ({rate.low:,.0f} - {rate.high:,.0f})",
                f"{ratio.median:.2f} of {model.baseline} ({ratio.low:.2f} - {ratio.high:.2f})" if ratio else "",
            )
    if table.row_count:
        Console(highlight=False).print(table)
