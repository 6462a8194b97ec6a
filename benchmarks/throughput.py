"""`dtk bench throughput`: training strategies on the same work, in blocks that take turns.

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
from throughput_parts.course import Course
from throughput_parts.kept import whole_rounds
from throughput_parts.outcome import as_json, quantities

_SHOWN = (
    "strategies", "models", "size", "precision", "nproc", "scaling", "batches", "device", "gpus", "rounds",
    "block_seconds", "at_once", "find_batch", "memory_limit", "seed",
)  # fmt: skip


def describe(options: Options) -> Mapping[str, Any]:
    """The first record."""
    return {**machine.describe(options.cores), "options": {name: getattr(options, name) for name in _SHOWN}}


def measure(options: Options, add: Callable[[Record], None], say: Callable[[str], None], done: Records) -> None:
    """See `course`."""
    Course(options, add, say, done).run()


BENCHMARK = Benchmark(
    "throughput", parse, describe, terminal.Progress, measure, report.render, as_json, terminal.show, quantities,
    whole_rounds,
)  # fmt: skip

if __name__ == "__main__":
    sys.exit(main(BENCHMARK, sys.argv[1:]))
