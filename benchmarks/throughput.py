"""`dtk bench throughput`: samples/s of training strategies on the same work, in blocks that take turns.

Writes DIR/results.jsonl, one JSON object a line, and DIR/report.md, which is rendered from those lines alone.
Exit codes: 0 measured; 1 a strategy failed; 2 the arguments or the machine do not fit, and nothing was started;
128 + n ended by signal n, with what was measured until then kept.
"""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from typing import Any

from throughput_parts import machine, report, terminal
from throughput_parts.arguments import Options, UsageError, parse
from throughput_parts.interrupt import Interrupted, interruptible
from throughput_parts.modes import ModeFailed, running
from throughput_parts.records import RecordFile, read_records
from throughput_parts.rounds import calibrate, measure
from throughput_parts.summary import as_json, summarise


def main(argv: list[str]) -> int:
    """Parse, measure, report; the exit code."""
    try:
        options = parse(argv)
        records = RecordFile(options.out)
    except UsageError as error:
        print(f"dtk bench throughput: error: {error}", file=sys.stderr)
        return 2
    with records:
        records.add(machine.describe(options))
        code = run(options, records)
    return finish(options, code)


def run(options: Options, records: RecordFile) -> int:
    """Measure every model and write how it ended; the exit code."""
    end: dict[str, Any] = {"kind": "end", "status": "complete"}
    code = 0
    with ExitStack() as stack:
        progress = stack.enter_context(terminal.Progress(options))
        try:
            with interruptible():
                for model in options.models:
                    measure_model(options, model, records, progress)
        except ModeFailed as error:
            progress.line(str(error))
            end, code = {"kind": "end", "status": "failed", "strategy": error.strategy, "model": error.model}, 1
        except Interrupted as error:
            progress.line(f"ended by {error.name}; what was measured until here is kept")
            end, code = {"kind": "end", "status": "interrupted"}, 128 + error.signum
    records.add(end)
    return code


def measure_model(options: Options, model: str, records: RecordFile, progress: terminal.Progress) -> None:
    """All strategies on one model: started together, measured in turn, ended together."""
    progress.update(f"{model}: starting {', '.join(options.strategies)} ...")
    with running(options, model) as modes:
        for mode in modes:
            records.add({"kind": "setup", "model": model, "strategy": mode.strategy, **mode.hello})
        progress.update(f"{model}: finding the number of steps in a block ...")
        steps = calibrate(modes, options.block_seconds)
        for block in measure(modes, model, steps, options.rounds):
            records.add(block)
            progress.block(block)


def finish(options: Options, code: int) -> int:
    """Write the report from the file of records, and show the result; `code`, unchanged."""
    records = read_records(options.out)
    summary = summarise(records)
    path = options.out / "report.md"
    path.write_text(report.render(records), encoding="utf-8")
    if options.json:
        print(json.dumps(as_json(summary, records), indent=2))
    else:
        terminal.show(summary)
    print(f"report: {path}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
