"""`dtk bench throughput`: samples/s of training strategies on the same work, in blocks that take turns.

Files and exit codes: see bench_parts.driver.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

from bench_parts import machine
from bench_parts.driver import Benchmark, main
from bench_parts.records import Record, Records
from throughput_parts import report, terminal
from throughput_parts.arguments import Options, parse
from throughput_parts.modes import running
from throughput_parts.rounds import calibrate, measure
from throughput_parts.summary import as_json, quantities

Add, Say = Callable[[Record], None], Callable[[str], None]


def describe(options: Options) -> Mapping[str, Any]:
    """The first record."""
    shown = ("strategies", "models", "nproc", "device", "gpus", "rounds", "block_seconds", "seed")
    return {**machine.describe(options.cores), "options": {name: getattr(options, name) for name in shown}}


def measure_all(options: Options, add: Add, say: Say, done: Records) -> None:
    """One model after the other: all strategies on it are started together, measured in turn, ended together."""
    for model in options.models:
        say(f"{model}: starting {', '.join(options.strategies)} ...")
        with running(options, model) as modes:
            for mode in modes:
                add({"kind": "setup", "model": model, "strategy": mode.strategy, **mode.hello})
            say(f"{model}: finding the number of steps in a block ...")
            steps = calibrate(modes, options.block_seconds)
            for block in measure(modes, model, steps, options.rounds):
                add(block)


BENCHMARK = Benchmark(
    "throughput", parse, describe, terminal.Progress, measure_all, report.render, as_json, terminal.show, quantities
)

if __name__ == "__main__":
    sys.exit(main(BENCHMARK, sys.argv[1:]))
