"""`dtk bench verdict`: how often dtk, and torchrun on the same runs, name the rank that failed first.

Files and exit codes: see bench_parts.driver.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench_parts import machine
from bench_parts.arguments import Parser, UsageError, usable_cores
from bench_parts.driver import Benchmark, main
from bench_parts.records import Record
from bench_parts.terminal import Progress
from verdict_parts import report, runs
from verdict_parts.scenarios import Scenario, scenarios


@dataclass(frozen=True)
class Options:
    """What was asked for."""

    seeds: int
    only: str
    out: Path
    json: bool

    def scenarios(self) -> list[Scenario]:
        """Those asked for."""
        return [each for each in scenarios(self.seeds) if self.only in f"{each.group}: {each.name}"]


def parse(argv: list[str]) -> Options:
    """Raises UsageError."""
    parser = Parser(prog="dtk bench verdict", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--seeds", type=int, default=2, metavar="N", help="draws of each cascade (default: %(default)s)"
    )
    parser.add_argument("--only", default="", metavar="TEXT", help="scenarios whose name holds this text")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/bench-verdict"), metavar="DIR",
        help="results.jsonl and report.md go here, over older ones (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")
    given = parser.parse_args(argv)
    if given.seeds < 1:
        raise UsageError(f"--seeds {given.seeds} is not a positive number")
    options = Options(given.seeds, given.only, given.out, given.json)
    if not options.scenarios():
        raise UsageError(f"--only {given.only!r} is in no scenario's name; try --only cascade")
    return options


def describe(options: Options) -> Mapping[str, Any]:
    """The first record."""
    shown = {"seeds": options.seeds, "only": options.only}
    return {**machine.describe(usable_cores()), "options": shown}


def measure(options: Options, add: Callable[[Record], None], say: Callable[[str], None]) -> None:
    """Every scenario once, one after the other."""
    failed = options.out / "wrong"
    runs.clear(failed)
    todo = options.scenarios()
    for number, scenario in enumerate(todo, 1):
        say(f"{number} of {len(todo)}: {scenario.group}: {scenario.name}")
        try:
            record = runs.measure(scenario)
        except runs.NotHere as error:
            add({"kind": "left_out", "name": scenario.name, "why": str(error)})
            continue
        if not runs.right(record)[0]:
            runs.keep_failed(failed, record)
        add({key: value for key, value in record.items() if key != "said"})


BENCHMARK = Benchmark(
    "verdict", parse, describe, lambda options: Progress(), measure, report.render, report.as_json, report.show
)

if __name__ == "__main__":
    sys.exit(main(BENCHMARK, sys.argv[1:]))
