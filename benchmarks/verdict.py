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
from bench_parts.arguments import Parser, UsageError, add_output, usable_cores
from bench_parts.driver import Benchmark, main
from bench_parts.records import Record, Records
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
    resume: bool = False
    overwrite: bool = False

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
    add_output(parser, "verdict")
    given = parser.parse_args(argv)
    if given.seeds < 1:
        raise UsageError(f"--seeds {given.seeds} is not a positive number")
    options = Options(**vars(given))
    if not options.scenarios():
        raise UsageError(f"--only {given.only!r} is in no scenario's name; try --only cascade")
    return options


def describe(options: Options) -> Mapping[str, Any]:
    """The first record."""
    shown = {"seeds": options.seeds, "only": options.only}
    return {**machine.describe(usable_cores()), "options": shown}


def measure(options: Options, add: Callable[[Record], None], say: Callable[[str], None], done: Records) -> None:
    """Every scenario once, one after the other, but for those that are there."""
    failed = options.out / "wrong"
    if not done:
        runs.clear(failed)
    there = {(record.get("group"), record["name"]) for record in done if record["kind"] in ("run", "left_out")}
    todo = [each for each in options.scenarios() if not {(each.group, each.name), (None, each.name)} & there]
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
    "verdict", parse, describe, lambda options: Progress(), measure, report.render, report.as_json, report.show,
    report.quantities,
)  # fmt: skip

if __name__ == "__main__":
    sys.exit(main(BENCHMARK, sys.argv[1:]))
