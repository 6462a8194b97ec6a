"""`dtk bench heartbeat`: what the heartbeat of dtk launch adds to a step, against the same steps without it.

Files and exit codes: see bench_parts.driver.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench_parts import machine, markdown
from bench_parts.arguments import Parser, UsageError, add_output, usable_cores
from bench_parts.driver import Benchmark, main
from bench_parts.figures import Figure
from bench_parts.processes import POLL, Started, clean_environment, temporary_folder
from bench_parts.quantities import Quantity
from bench_parts.records import Record, Records
from bench_parts.rounds import next_round, of_kind
from bench_parts.statistics import Paired, Spread, ratios, status_of
from bench_parts.terminal import Progress

RANK = Path(__file__).with_name("_heartbeat_rank.py")
TARGET = 0.005
"""Of a step: what the heartbeat may add at most."""
_LIMIT = 600.0  # seconds without a word of the rank


@dataclass(frozen=True)
class Options:
    """What was asked for."""

    rounds: int
    steps: int
    step_ms: float
    out: Path
    json: bool
    resume: bool = False


def parse(argv: list[str]) -> Options:
    """Raises UsageError."""
    parser = Parser(prog="dtk bench heartbeat", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    add = parser.add_argument
    add("--rounds", type=int, default=60, metavar="N", help="of both kinds of steps (default: %(default)s)")
    add("--steps", type=int, default=100, metavar="N", help="steps of each kind in a round (default: %(default)s)")
    add("--step-ms", type=float, default=5.0, metavar="MS", help="length of a step (default: %(default)s)")
    add_output(parser, "heartbeat")
    given = parser.parse_args(argv)
    for name in ("rounds", "steps", "step_ms"):
        if getattr(given, name) <= 0:
            raise UsageError(f"--{name.replace('_', '-')} {getattr(given, name)} is not a positive number")
    return Options(given.rounds, given.steps, given.step_ms, given.out, given.json, given.resume)


def describe(options: Options) -> Mapping[str, Any]:
    """The first record."""
    shown = {"rounds": options.rounds, "steps": options.steps, "step_ms": options.step_ms}
    return {**machine.describe(usable_cores()), "options": shown}


def measure(options: Options, add: Callable[[Record], None], say: Callable[[str], None], done: Records) -> None:
    """One rank under dtk launch, which does both kinds of steps in turns."""
    first = next_round(done)
    if first == options.rounds:
        return
    say(f"{options.rounds} rounds of 2 x {options.steps} steps of {options.step_ms:g} ms ...")
    words = [sys.executable, "-m", "dtk_launch", "launch", "--nproc", "1", "--device", "cpu", "--run-dir", "run"]
    words += [str(RANK), str(first), str(options.rounds), str(options.steps), str(options.step_ms)]
    with temporary_folder() as home:
        process = Started(words, home, clean_environment(os.environ, 1), options.out / "failed")
        begun = bool(of_kind(done, "call"))
        try:
            for record in _records(process, home / "run" / "ranks" / "0.log"):
                if record["kind"] != "call" or not begun:
                    add(record)
        finally:
            process.end(0.0)


def _records(process: Started, log: Path) -> Iterator[dict[str, Any]]:
    """What the rank prints, as it comes. Raises ProcessFailed where it fails, or prints nothing for too long."""
    seen, deadline = 0, time.monotonic() + _LIMIT
    while time.monotonic() < deadline:
        ended = process.wait(POLL) is not None
        lines = log.read_text().splitlines(keepends=True) if log.exists() else []
        whole = [line for line in lines if line.endswith("\n")]
        for line in whole[seen:]:
            yield json.loads(line)
            deadline = time.monotonic() + _LIMIT
        seen = len(whole)
        if ended:
            break
    if process.wait(0.0) != 0 or not seen:
        raise process.failure("the rank failed")


def keep(records: Records) -> Records:
    """Rounds of which both blocks are there."""
    counts = Counter(record["round"] for record in of_kind(records, "block"))
    return [record for record in records if record["kind"] != "block" or counts[record["round"]] == 2]


def quantities(records: Records) -> list[Quantity]:
    """The time of a step, with and without."""
    found: dict[str, list[float]] = {}
    for record in of_kind(records, "block"):
        found.setdefault(record["mode"], []).append(record["milliseconds"])
    return [Quantity((mode, "step"), "ms", "lower", tuple(values)) for mode, values in found.items()]


def summary(records: Records) -> dict[str, Any]:
    """The numbers of the report; empty without a whole round."""
    blocks = {mode: {r["round"]: r["milliseconds"] for r in records if r["kind"] == "block" and r["mode"] == mode}
              for mode in ("with", "without")}  # fmt: skip
    paired: Paired | None = ratios(blocks["with"], blocks["without"])
    call = next((r["microseconds"] for r in records if r["kind"] == "call"), None)
    if paired is None or call is None:
        return {}
    step = Spread.of(list(blocks["without"].values()))
    return {
        "rounds": paired.spread.count,
        "step_ms": step.median,
        "call_us": call,
        "call_share": call / 1000 / step.median,
        "ratio": paired.spread.median,
        "ratio_low": paired.low,
        "ratio_high": paired.high,
        "target": TARGET,
        "below_target": call / 1000 / step.median < TARGET,
    }


def render(records: Records) -> list[str | Figure]:
    """The report."""
    status, found = status_of(records), summary(records)
    parts: list[str | Figure] = ["# The heartbeat of dtk launch", markdown.status(status)]
    if found:
        parts.append(
            f"- One call of the hook takes {found['call_us']:.2f} microseconds, {found['call_share']:.3%} of a step of "
            f"{found['step_ms']:.1f} ms."
        )
        lines = [
            "| | |", "|---|---|",
            markdown.row("a step without the heartbeat", f"{found['step_ms']:.3f} ms"),
            markdown.row("one call of the hook, timed alone", f"{found['call_us']:.2f} us"),
            markdown.row("that is, of such a step", f"{found['call_share']:.4%} (to be below {TARGET:.1%})"),
            markdown.row(
                "a step with / a step without, of the same round",
                f"{found['ratio']:.4f} (95 % interval of the median: {_interval(found)})",
            ),
            "",
            f"{markdown.count(found['rounds'], 'round')} of steps with and without in turns, in one process: one rank "
            "under `dtk launch`, one thread. A step without has the heartbeat taken out of torch's table of hooks. A "
            "ratio is that of the two medians of a round.",
        ]  # fmt: skip
        parts.append("\n".join(lines))
    parts += ["## Machine", markdown.machine_table(records[0])]
    return [part for part in parts if part]


def show(records: Records) -> None:
    """The result in a line."""
    found = summary(records)
    if found:
        print(f"{found['call_us']:.2f} us a step, {found['call_share']:.4%} of {found['step_ms']:.2f} ms")
        print(f"with / without: {found['ratio']:.4f} ({_interval(found)})")


def _interval(found: Mapping[str, Any]) -> str:
    return f"{found['ratio_low']:.4f} to {found['ratio_high']:.4f}"


BENCHMARK = Benchmark(
    "heartbeat", parse, describe, lambda options: Progress(), measure, render, summary, show, quantities, keep
)

if __name__ == "__main__":
    sys.exit(main(BENCHMARK, sys.argv[1:]))
