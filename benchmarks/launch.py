"""`dtk bench launch`: what the command line costs beside torchrun's: to an answer, to the first line, while it runs.

Files and exit codes: see bench_parts.driver.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench_parts import machine
from bench_parts.arguments import Parser, UsageError, add_output, split_names, usable_cores
from bench_parts.driver import Benchmark, main
from bench_parts.records import Record, Records
from bench_parts.rounds import of_kind
from launch_parts import answers, idle, report, starts
from launch_parts.progress import Progress

PARTS = {"starts": starts.measure, "idle": idle.measure, "answers": answers.measure}


@dataclass(frozen=True)
class Options:
    """What was asked for."""

    rounds: int
    parts: tuple[str, ...]
    out: Path
    json: bool
    resume: bool = False
    overwrite: bool = False


def parse(argv: list[str]) -> Options:
    """Raises UsageError."""
    parser = Parser(prog="dtk bench launch", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, metavar="N", help="of each command (default: %(default)s)")
    parser.add_argument("--parts", default=",".join(PARTS), metavar="A,B", help="of: %(default)s (default: all)")
    add_output(parser, "launch")
    given = parser.parse_args(argv)
    if given.rounds < 2:
        raise UsageError(f"--rounds {given.rounds}: quartiles need 2 or more")
    return Options(**vars(given) | {"parts": split_names("--parts", "part", given.parts, PARTS)})


def describe(options: Options) -> Mapping[str, Any]:
    """The first record."""
    shown = {"rounds": options.rounds, "parts": options.parts}
    return {**machine.describe(usable_cores()), "libraries": {"click": version("click")}, "options": shown}


def measure(options: Options, add: Callable[[Record], None], say: Callable[[str], None], done: Records) -> None:
    """All parts, one after the other."""
    there = {_place(record) for record in done}
    with tempfile.TemporaryDirectory() as folder:
        for part in options.parts:
            rounds = idle.ROUNDS if part == "idle" else options.rounds
            say(f"{part}: {rounds} rounds ...")
            for record in PARTS[part](Path(folder), rounds, lambda kind, name, number: (kind, name, number) in there):
                add(record)


def keep(records: Records) -> Records:
    """Rounds of starts and of answers that have their `others`, which come last; a look at a run stands by itself."""
    parts = {"start": "starts", "answer": "answers"}
    whole = {(record["part"], record["round"]) for record in of_kind(records, "others")}
    return [r for r in records if r["kind"] not in parts or (parts[r["kind"]], r["round"]) in whole]


def _place(record: Record) -> tuple[str, str | None, int | None]:
    """Kind, what of it, round."""
    return record["kind"], record.get("command", record.get("ranks")), record.get("round")


BENCHMARK = Benchmark(
    "launch", parse, describe, Progress, measure, report.render, report.as_json, report.show,
    report.quantities, keep,
)  # fmt: skip

if __name__ == "__main__":
    sys.exit(main(BENCHMARK, sys.argv[1:]))
