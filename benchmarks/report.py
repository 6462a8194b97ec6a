"""`dtk bench report DIR`: the report of a result, made anew from its results.jsonl alone; nothing is measured.

Writes report.md, report.html and the plots beside it and prints the table, as at the end of the run. Exit codes: 0, or
2 where there is no result, or nothing was measured in it.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from bench_parts.arguments import Parser, UsageError
from bench_parts.markdown import NOTHING
from bench_parts.publish import publish
from bench_parts.records import NAME
from bench_parts.registry import read_result


def main(argv: list[str]) -> int:
    """Read, write, print; the exit code."""
    parser = Parser(prog="dtk bench report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("result", type=Path, metavar="DIR", help="the --out of a benchmark, or its results.jsonl")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")
    try:
        given = parser.parse_args(argv)
        benchmark, records = read_result(given.result)
        folder = given.result.parent if given.result.name == NAME else given.result
        report = benchmark.render(records)
        written = publish(folder, report)
    except UsageError as error:
        print(f"dtk bench report: error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"dtk bench report: error: cannot write the report: {error}", file=sys.stderr)
        return 2
    if given.json:
        print(json.dumps(benchmark.as_json(records), indent=2))
    else:
        benchmark.show(records)
    print(f"report: {written}", file=sys.stderr)
    if NOTHING not in report:
        return 0
    if given.json:
        print(NOTHING, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
