"""What a benchmark does from its arguments to its exit code.

Writes DIR/results.jsonl, one JSON object a line, and from those lines alone DIR/report.md, report.html and its plots.
With BENCHMARK_CHECK set (bench_parts.elsewhere) it checks the arguments and prints what they need, for a job of SLURM.
Exit codes: 0 measured; 1 what was started failed; 2 the arguments or the machine do not fit, and nothing was started;
128 + n ended by signal n, with what was measured until then kept: the same command with --resume goes on. Before and
after the measurement, too, and while the report is drawn.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from shlex import quote
from typing import Any

from . import resume
from .arguments import UsageError
from .elsewhere import is_elsewhere
from .figures import Figure
from .interrupt import Interrupted, interruptible
from .needs import needs
from .processes import ProcessFailed
from .publish import publish
from .quantities import Quantity
from .records import Record, RecordFile, Records, read_records
from .replacing import check_replaceable
from .terminal import Progress, say

Options = Any
"""Of a benchmark; all have `out`, a folder, and `json`, `resume` and `overwrite`, each a bool."""


def _all(records: Records) -> Records:
    return records


@dataclass(frozen=True)
class Benchmark:
    """One benchmark, `dtk bench NAME`."""

    name: str
    parse: Callable[[list[str]], Options]
    """Raises UsageError."""
    describe: Callable[[Options], Mapping[str, Any]]
    """The first record."""
    progress: Callable[[Options], Progress]
    measure: Callable[[Options, Callable[[Record], None], Callable[[str], None], Records], None]
    """From options, where each record goes as soon as there is one, where words of progress go, and what an interrupted
    run has already measured (nothing, unless it is resumed), which is not to be measured again."""
    render: Callable[[Records], Sequence[str | Figure]]
    """The report: blocks of Markdown, and figures where they are to stand."""
    as_json: Callable[[Records], Any]
    """The report's numbers as plain values."""
    show: Callable[[Records], None]
    """The report's main table, on the terminal."""
    quantities: Callable[[Records], Sequence[Quantity]]
    """What `dtk bench compare` compares."""
    keep: Callable[[Records], Records] = _all
    """Of an interrupted run (without its end), the records that stand: a round that was cut off may have to go."""


def main(benchmark: Benchmark, argv: list[str]) -> int:
    """Parse, measure, report; the exit code."""
    left = " before anything was measured"
    try:
        with interruptible():
            try:
                options = benchmark.parse(argv)
                if is_elsewhere():
                    needed = needs(options)
                    _found(benchmark, options)
                    print(json.dumps(needed))
                    return 0
                file, done = _open(benchmark, options)
            except UsageError as error:
                say(f"dtk bench {benchmark.name}: error: {error}")
                return 2
            again = f"`dtk bench report {quote(str(options.out))}` makes the report"
            left = f"; {options.out} keeps what was measured, and {again}"
            code = _measure(benchmark, options, file, done)
            _report(benchmark, options)
            return code
    except Interrupted as error:
        after_echo = "\n" if sys.stderr.isatty() else ""  # the terminal's ^C
        say(f"{after_echo}dtk bench {benchmark.name}: ended by {error.name}{left}")
        return 128 + error.signum


def _open(benchmark: Benchmark, options: Options) -> tuple[RecordFile | None, Records]:
    """The file of records, None where nothing is left to measure, and the records that stand. Raises UsageError."""
    machine, found = _found(benchmark, options)
    if resume.is_complete(found):
        return None, found
    done = benchmark.keep([record for record in found if record["kind"] != "end"])
    return RecordFile(options.out, done or [machine]), done


def _found(benchmark: Benchmark, options: Options) -> tuple[Record, list[dict[str, Any]]]:
    """The first record of this run, and those to go on with. Writes nothing. Raises UsageError for what is in the way.

    For another machine than this, only the options are compared.
    """
    if not (options.resume or options.overwrite):
        check_replaceable(options.out, benchmark.name)
    if is_elsewhere() and not options.resume:
        return {}, []
    machine = {**benchmark.describe(options), "benchmark": benchmark.name}
    return machine, resume.kept(options.out, machine, is_elsewhere()) if options.resume else []


def _measure(benchmark: Benchmark, options: Options, file: RecordFile | None, done: Records) -> int:
    """Measure what is left; the exit code."""
    if file is None:
        say(f"{options.out} is complete: nothing is left to measure")
        return 0
    with file:
        return _run(benchmark, options, file, done)


def _run(benchmark: Benchmark, options: Options, file: RecordFile, done: Records) -> int:
    """Measure everything and write how it ended; the exit code."""
    end: dict[str, Any] = {"kind": "end", "status": "complete"}
    code = 0
    with benchmark.progress(options) as progress:

        def add(record: Record) -> None:
            file.add(record)
            progress.record(record)

        try:
            benchmark.measure(options, add, progress.update, done)
        except ProcessFailed as error:
            progress.line(str(error))
            end, code = {"kind": "end", "status": "failed", **error.where}, 1
        except Interrupted as error:
            progress.line(f"ended by {error.name}; what was measured until here is kept, and --resume goes on with it")
            end, code = {"kind": "end", "status": "interrupted"}, 128 + error.signum
    file.add(end)
    return code


def _report(benchmark: Benchmark, options: Options) -> None:
    """Write the report from the file of records, and show the result."""
    records = read_records(options.out)
    written = publish(options.out, benchmark.render(records))
    if options.json:
        print(json.dumps(benchmark.as_json(records), indent=2))
    else:
        benchmark.show(records)
    say(f"report: {written}")
