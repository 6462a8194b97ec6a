"""What a person sees of this benchmark."""

from __future__ import annotations

from bench_parts import terminal
from bench_parts.records import Record, Records

from .arguments import Options
from .summary import summarise


class Progress(terminal.Progress):
    """The rates of the round under way."""

    def __init__(self, options: Options) -> None:
        super().__init__()
        self._rounds, self._strategies = options.rounds, len(options.strategies)
        self._rates: dict[str, str] = {}

    def record(self, block: Record) -> None:
        """Show a block; elsewhere than on a terminal, the last of each round."""
        if block["kind"] != "block":
            return
        if block["warmup"] and block["position"] == 0:
            self._rates = {}
        self._rates[block["strategy"]] = f"{block['strategy']} {block['samples_per_s']:,.0f}"
        number = "warm-up" if block["warmup"] else f"round {block['round']} of {self._rounds}"
        text = f"{block['model']}: {number}   {'   '.join(self._rates.values())}   samples/s"
        if self.live or block["position"] == self._strategies - 1:
            self.update(text)


def show(records: Records) -> None:
    """Print the rates and the ratios."""
    from rich.table import Table

    table = Table("model", "strategy", "ranks", box=None, header_style="bold", pad_edge=False)
    table.add_column("samples/s (quartiles)", justify="right", no_wrap=True)
    table.add_column("ratio (quartiles)", justify="right", no_wrap=True)
    for model in summarise(records):
        for mode in model.modes:
            rate, ratio = mode.samples_per_s, mode.ratio
            table.add_row(
                model.model,
                mode.strategy,
                str(mode.ranks),
                f"[bold]{rate.median:,.0f}[/] ({rate.low:,.0f} - {rate.high:,.0f})",
                f"{ratio.median:.2f} of {model.baseline} ({ratio.low:.2f} - {ratio.high:.2f})" if ratio else "",
            )
    terminal.print_table(table)
