"""What a person sees of this benchmark."""

from __future__ import annotations

from types import TracebackType

from bench_parts import terminal
from bench_parts.markdown import NOTHING
from bench_parts.records import Record, Records
from bench_parts.spreads import quartiles

from .arguments import Options
from .cases import label
from .grids import note
from .names import APART, times
from .outcome import fits
from .summary import summarise


class Progress(terminal.Progress):
    """The rates of the round under way."""

    def __init__(self, options: Options) -> None:
        super().__init__()
        self._rounds = options.rounds
        self._round: tuple[object, ...] = ()
        self._rates: dict[str, str] = {}

    def record(self, block: Record) -> None:
        """Show a block; elsewhere than on a terminal, the rates of a round once it is over."""
        if block["kind"] != "block":
            return
        this = (block["model"], block["precision"], block["batch"], block["round"])
        if this != self._round:
            self._tell()
            self._round, self._rates = this, {}
        name = label(block["strategy"], block["nproc"])
        self._rates[name] = f"{name} {block['samples_per_s']:,.0f}"
        if self.live:
            self.update(self._text())

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tell()
        super().__exit__(kind, value, trace)

    def update(self, text: str) -> None:
        """Show what happens now, behind the round that is over."""
        self._tell()
        super().update(text)

    def _tell(self) -> None:
        if self._rates and not self.live:
            rates, self._rates = self._text(), {}
            super().update(rates)

    def _text(self) -> str:
        model, precision, batch, number = self._round
        which = f"round {number} of {self._rounds}" if number else "warm-up"
        return f"{model} {precision}, batch {batch}: {which}   {'   '.join(self._rates.values())}   samples/s"


def show(records: Records) -> None:
    """Print the rates and the ratios, and the largest batches."""
    from rich.table import Table

    table = Table("model", "precision", "batch", "strategy", box=None, header_style="bold", pad_edge=False)
    for name in ("samples/s (quartiles)", "step p50 / p95", "peak memory", "ratio (quartiles)", "scaling"):
        table.add_column(name, justify="right", no_wrap=True)
    works = summarise(records)
    if not works and not fits(records):
        print(NOTHING)
    for work in works:
        for mode in work.modes:
            rate, ratio, memory = mode.samples_per_s, mode.ratio, mode.memory
            table.add_row(
                work.model,
                work.precision,
                str(work.batch),
                mode.label,
                f"[bold]{rate.median:,.0f}[/] ({quartiles(rate, '{:,.0f}'.format)})",
                f"{mode.step_ms:.1f} / {'-' if mode.slow_step_ms is None else f'{mode.slow_step_ms:.1f}'} ms",
                f"{memory.rss_sum if memory.gpu_reserved is None else memory.gpu_reserved:,.0f} MiB",
                f"{times(ratio, mode.apart, mode.compared_with)} ({quartiles(ratio)})" if ratio else "",
                "" if mode.efficiency is None else f"{100 * mode.efficiency:.0f} %{APART if mode.scaled_apart else ''}",
            )
    terminal.print_table(table)
    if note(works):
        print(note(works))
    batches = Table("model", "precision", "strategy", "largest batch a process", box=None, header_style="bold")
    for fit in fits(records):
        found = "none" if fit["per_process"] is None else f"{fit['per_process']} ({fit['global']} over all)"
        batches.add_row(fit["model"], fit["precision"], label(fit["strategy"], fit["nproc"]), found)
    terminal.print_table(batches)
