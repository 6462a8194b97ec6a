"""`dtk bench overhead`: what dist_toolkit, Lightning Fabric and Accelerate add to a hand-written DDP loop.

Writes DIR/results.jsonl, one JSON object a line, and DIR/report.md, which is rendered from those lines alone.
Exit codes: 0 measured; 1 a rank failed; 2 the arguments or the machine do not fit, and nothing was started;
128 + n ended by signal n, with what was measured until then kept.
"""

from __future__ import annotations

import json
import sys
from importlib import metadata
from typing import Any

from overhead_parts import report, terminal
from overhead_parts.arguments import Options, UsageError, parse
from overhead_parts.ranks import RanksFailed, running
from overhead_parts.summary import as_json, summarise
from overhead_parts.tables import LOOPS
from throughput_parts import machine
from throughput_parts.interrupt import Interrupted, interruptible
from throughput_parts.records import RecordFile, read_records


def main(argv: list[str]) -> int:
    """Parse, measure, report; the exit code."""
    try:
        options = parse(argv)
        records = RecordFile(options.out)
    except UsageError as error:
        print(f"dtk bench overhead: error: {error}", file=sys.stderr)
        return 2
    with records:
        records.add(_describe(options))
        code = run(options, records)
    return finish(options, code)


def run(options: Options, records: RecordFile) -> int:
    """Measure all loops and write how it ended; the exit code."""
    end: dict[str, Any] = {"kind": "end", "status": "complete"}
    code = 0
    with terminal.Progress(options.rounds) as progress:
        for loop, package in options.left_out:
            missing = {"kind": "left_out", "loop": loop, "why": f"{package} is not installed"}
            records.add(missing)
            progress.record(missing)
        try:
            with interruptible():
                progress.update(
                    f"starting {options.nproc} rank{'s' * (options.nproc > 1)} with {', '.join(options.loops)} ..."
                )
                with running(options) as seen:
                    for record in seen:
                        records.add(record)
                        progress.record(record)
        except RanksFailed as error:
            progress.line(str(error))
            end, code = {"kind": "end", "status": "failed"}, 1
        except Interrupted as error:
            progress.line(f"ended by {error.name}; what was measured until here is kept")
            end, code = {"kind": "end", "status": "interrupted"}, 128 + error.signum
    records.add(end)
    return code


def finish(options: Options, code: int) -> int:
    """Write the report from the file of records, and show the result; `code`, unchanged."""
    records = read_records(options.out)
    summary = summarise(records)
    path = options.out / "report.md"
    path.write_text(report.render(records), encoding="utf-8")
    if options.json:
        print(json.dumps(as_json(summary), indent=2))
    else:
        terminal.show(summary)
    print(f"report: {path}", file=sys.stderr)
    return code


def _describe(options: Options) -> dict[str, Any]:
    packages = sorted({LOOPS[name].package for name in options.loops} - {""})
    shown = ("loops", "feeds", "nproc", "device", "rounds", "steps", "batch", "width", "seed", "quick")
    return {
        **machine.host(options.cores),
        "libraries": {name: metadata.version(name) for name in packages},
        "options": {name: getattr(options, name) for name in shown},
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
