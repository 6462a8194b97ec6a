"""`dtk bench compare A B`: what changed between two results of the same benchmark, and whether it is more than noise.

A and B are the --out of two runs. Each number that both measured is compared: median over rounds of B over that of A,
with a 95 % interval by resampling the rounds of both. That is the noise within each run; what differs from run to run
(another machine, another load, another layout in memory) is not in it: what differs of machine, versions, commit and
options is printed first, and a change of some per cent between two runs of the same code is to be expected.

Exit codes: 0; 1 with --fail-if-worse, if something surely got worse by more than that; 2 there is nothing to compare.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from bench_parts.arguments import Parser, UsageError
from bench_parts.resume import differences
from bench_parts.terminal import print_table
from bench_parts.words import number
from compare_parts.changes import Change, change
from compare_parts.results import Result, read, shared

_COLOURS = {"better": "green", "worse": "red"}


def main(argv: list[str]) -> int:
    """Compare; the exit code."""
    try:
        given = _parse(argv)
        a, b = read(given.a), read(given.b)
        changes = compare(a, b)
    except UsageError as error:
        print(f"dtk bench compare: error: {error}", file=sys.stderr)
        return 2
    if given.json:
        print(json.dumps(_as_json(a, b, changes), indent=2))
    else:
        _show(a, b, changes)
    limit = given.fail_if_worse
    worst = [each for each in changes if limit is not None and 100 * each.worse_by > limit]
    for each in worst:
        print(f"worse by more than {limit:g} %: {' '.join(each.name)}", file=sys.stderr)
    return 1 if worst else 0


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = Parser(prog="dtk bench compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("a", type=Path, metavar="A", help="the --out of a run: what it was")
    add("b", type=Path, metavar="B", help="the --out of another: what it is now")
    add("--fail-if-worse", type=float, metavar="PERCENT", help="exit with 1 if a number surely got worse by more")
    add("--json", action="store_true", help="print all as JSON")
    given = parser.parse_args(argv)
    if given.fail_if_worse is not None and not given.fail_if_worse >= 0:
        raise UsageError(f"--fail-if-worse {given.fail_if_worse} is not a number of per cent from 0")
    return given


def compare(a: Result, b: Result) -> list[Change]:
    """All that both measured.

    Raises:
        UsageError: they share nothing.
    """
    if a.benchmark.name != b.benchmark.name:
        raise UsageError(f"{a.label} is of dtk bench {a.benchmark.name}, {b.label} of dtk bench {b.benchmark.name}")
    pairs = shared(*(each.benchmark.quantities(each.records) for each in (a, b)))
    if not pairs:
        raise UsageError(f"{a.label} and {b.label} have no number in common; measure the same models and strategies")
    return [change(*pair) for pair in pairs]


def _as_json(a: Result, b: Result, changes: list[Change]) -> dict[str, object]:
    return {
        "benchmark": a.benchmark.name,
        "a": {"path": a.label, "status": a.status},
        "b": {"path": b.label, "status": b.status},
        "differences": list(differences(a.machine, b.machine)),
        "changes": [asdict(each) for each in changes],
    }


def _show(a: Result, b: Result, changes: list[Change]) -> None:
    from rich.markup import escape
    from rich.table import Table

    print(f"dtk bench {a.benchmark.name}: A is {a.label}, B is {b.label}")
    for name, result in (("A", a), ("B", b)):
        if result.status != "complete":
            print(f"  {name} is {result.status}: it has fewer rounds than were asked for")
    for words in differences(a.machine, b.machine):
        print(f"  {words}")
    table = Table("what", "unit", box=None, header_style="bold", pad_edge=False)
    for head in ("A", "B", "B / A (95 %)"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for each in changes:
        colour = _COLOURS.get(each.verdict, "dim")
        interval = f"{each.ratio:.3f} ({each.low:.3f} to {each.high:.3f})"
        cells = (escape(" ".join(each.name)), each.unit, number(each.a.median), number(each.b.median), interval)
        table.add_row(*cells, f"[{colour}]{each.verdict}[/]")
    print_table(table)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
