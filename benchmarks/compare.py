"""`dtk bench compare A B`: what changed between two results of the same benchmark, and whether it is more than noise.

A and B are the --out of two runs. Each number that both measured is compared: median over rounds of B over that of A,
with a 95 % interval by resampling the rounds of both. That is the noise within each run; what differs from run to run
(another machine, another load, another layout in memory) is not in it: what differs of machine, versions, commit and
options is printed first, and a change of some per cent between two runs of the same code is to be expected. Numbers of
other work, such as those of a state of another size, are not compared. What only one of them measured is listed. A peak
of memory is one number a run: it has no interval and is not judged. Of throughput's step times the p50 and p95 of each
round are compared, "by round"; its report has those of the steps of all rounds together.

Exit codes: 0; 2 there is nothing to compare. With --fail-if-worse 1, and the reasons on stderr, if a number surely got
worse by more than that, if a number of A is missing in B, if B is not complete or something failed in it that did not
in A, if the work of a number differs, and if a number has fewer than 6 rounds in one of them, unless every one in B is
as good as every one in A: else nobody can tell whether it got worse.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from bench_parts.arguments import Parser, UsageError
from bench_parts.resume import differences
from bench_parts.terminal import print_table
from bench_parts.words import number
from compare_parts.changes import Change, change
from compare_parts.gate import reasons
from compare_parts.results import Matched, Result, match, read

_COLOURS = {"better": "green", "worse": "red"}


def main(argv: list[str]) -> int:
    """Compare; the exit code."""
    try:
        given = _parse(argv)
        a, b = read(given.a), read(given.b)
        matched = compare(a, b)
    except UsageError as error:
        print(f"dtk bench compare: error: {error}", file=sys.stderr)
        return 2
    changes = [change(*pair) for pair in matched.both]
    if given.json:
        print(json.dumps(_as_json(a, b, matched, changes), indent=2))
    else:
        _show(a, b, matched, changes)
    if given.fail_if_worse is None:
        return 0
    found = list(reasons(a, b, matched, changes, given.fail_if_worse))
    for reason in found:
        print(reason, file=sys.stderr)
    return 1 if found else 0


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = Parser(prog="dtk bench compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("a", type=Path, metavar="A", help="the --out of a run: what it was")
    add("b", type=Path, metavar="B", help="the --out of another: what it is now")
    add(
        "--fail-if-worse",
        type=float,
        metavar="PERCENT",
        help="exit with 1 if a number surely got worse by more, is missing in B or cannot be judged; see above",
    )
    add("--json", action="store_true", help="print all as JSON")
    given = parser.parse_args(argv)
    if given.fail_if_worse is not None and not given.fail_if_worse >= 0:
        raise UsageError(f"--fail-if-worse {given.fail_if_worse} is not a number of per cent from 0")
    return given


def compare(a: Result, b: Result) -> Matched:
    """What both measured, and what only one of them did.

    Raises:
        UsageError: they share nothing.
    """
    if a.benchmark.name != b.benchmark.name:
        raise UsageError(f"{a.label} is of dtk bench {a.benchmark.name}, {b.label} of dtk bench {b.benchmark.name}")
    found = match(a.quantities, b.quantities)
    if not found.both:
        raise UsageError(f"{a.label} and {b.label} have no number in common; measure the same models and strategies")
    return found


def _as_json(a: Result, b: Result, matched: Matched, changes: Sequence[Change]) -> dict[str, object]:
    sides = {
        name: {
            "path": result.label,
            "status": result.status,
            "failed": result.failed,
            "only": [{"name": each.name, "unit": each.unit} for each in only],
        }
        for name, result, only in (("a", a, matched.only_a), ("b", b, matched.only_b))
    }
    return {
        "benchmark": a.benchmark.name,
        **sides,
        "differences": list(differences(a.machine, b.machine)),
        "changes": [each.as_json() for each in changes],
    }


def _show(a: Result, b: Result, matched: Matched, changes: Sequence[Change]) -> None:
    from rich.markup import escape
    from rich.table import Table

    print(f"dtk bench {a.benchmark.name}: A is {a.label}, B is {b.label}")
    for name, result in (("A", a), ("B", b)):
        if result.status != "complete":
            print(f"  {name} is {result.status}: it does not have all that was asked for")
        for what, why in result.failed.items():
            print(f"  failed in {name}: {what}: {why}")
    for words in differences(a.machine, b.machine):
        print(f"  {words}")
    table = Table("what", "unit", box=None, header_style="bold", pad_edge=False)
    for head in ("A", "B", "B / A (95 %)"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for each in changes:
        colour = _COLOURS.get(each.verdict, "dim")
        cells = (escape(" ".join(each.name)), each.unit, number(each.a.median), number(each.b.median), _ratio(each))
        table.add_row(*cells, f"[{colour}]{each.verdict}[/]")
    print_table(table)
    for name, only in (("A", matched.only_a), ("B", matched.only_b)):
        for quantity in only:
            print(f"only {name} has: {' '.join(quantity.name)}")


def _ratio(change: Change) -> str:
    """With its interval, where there is one."""
    if change.ratio is None:
        return "-"
    if change.low is None or change.high is None:
        return f"{change.ratio:.3f}"
    return f"{change.ratio:.3f} ({change.low:.3f} to {change.high:.3f})"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
