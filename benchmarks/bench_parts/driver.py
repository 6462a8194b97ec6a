"""What a benchmark of training does from its arguments to its exit code.

Writes DIR/results.jsonl, one JSON object a line, and DIR/report.md, which is rendered from those lines alone.
Exit codes: 0 measured; 1 what was started failed; 2 the arguments or the machine do not fit, and nothing was started;
128 + n ended by signal n, with what was measured until then kept.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .arguments import UsageError
from .interrupt import Interrupted, interruptible
from .processes import ProcessFailed
from .records import Record, RecordFile, Records, read_records
from .terminal import Progress

Options = Any
"""Of a benchmark; all have `out`, a folder, and `json`, a bool."""


@dataclass(frozen=True)
class Benchmark:
    """One benchmark, `dtk bench NAME`."""

    name: str
    parse: Callable[[list[str]], Options]
    """Raises UsageError."""
    describe: Callable[[Options], Mapping[str, Any]]
    """The first record."""
    progress: Callable[[Options], Progress]
    measure: Callable[[Options, Callable[[Record], None], Callable[[str], None]], None]
    """From options, where each record goes as soon as there is one, and where words of progress go."""
    render: Callable[[Records], str]
    """The report."""
    as_json: Callable[[Records], Any]
    """The report's numbers as plain values."""
    show: Callable[[Records], None]
    """The report's main table, on the terminal."""


def main(benchmark: Benchmark, argv: list[str]) -> int:
    """Parse, measure, report; the exit code."""
    try:
        options = benchmark.parse(argv)
        file = RecordFile(options.out)
    except UsageError as error:
        print(f"dtk bench {benchmark.name}: error: {error}", file=sys.stderr)
        return 2
    with file:
        file.add(benchmark.describe(options))
        code = _run(benchmark, options, file)
    _report(benchmark, options)
    return code


def _run(benchmark: Benchmark, options: Options, file: RecordFile) -> int:
    """Measure everything and write how it ended; the exit code."""
    end: dict[str, Any] = {"kind": "end", "status": "complete"}
    code = 0
    with benchmark.progress(options) as progress:

        def add(record: Record) -> None:
            file.add(record)
            progress.record(record)

        try:
            with interruptible():
                benchmark.measure(options, add, progress.update)
        except ProcessFailed as error:
            progress.line(str(error))
            end, code = {"kind": "end", "status": "failed", **error.where}, 1
        except Interrupted as error:
            progress.line(f"ended by {error.name}; what was measured until here is kept")
            end, code = {"kind": "end", "status": "interrupted"}, 128 + error.signum
    file.add(end)
    return code


def _report(benchmark: Benchmark, options: Options) -> None:
    """Write the report from the file of records, and show the result."""
    records = read_records(options.out)
    path = options.out / "report.md"
    path.write_text(benchmark.render(records), encoding="utf-8")
    if options.json:
        print(json.dumps(benchmark.as_json(records), indent=2))
    else:
        benchmark.show(records)
    print(f"report: {path}", file=sys.stderr)
