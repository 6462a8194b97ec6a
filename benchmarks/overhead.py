"""`dtk bench overhead`: what dist_toolkit, Lightning Fabric and Accelerate add to a hand-written DDP loop.

Files and exit codes: see bench_parts.driver.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import partial
from importlib import metadata
from typing import Any

from bench_parts import machine
from bench_parts.driver import Benchmark, main
from bench_parts.markdown import count
from bench_parts.ranks import running
from bench_parts.records import Record, Records
from bench_parts.rounds import next_round, of_kind, whole_rounds
from overhead_parts import report, terminal
from overhead_parts.arguments import Options, parse
from overhead_parts.ranks import command
from overhead_parts.summary import as_json, quantities
from overhead_parts.tables import LOOPS

Add, Say = Callable[[Record], None], Callable[[str], None]


def describe(options: Options) -> Mapping[str, Any]:
    """The first record."""
    packages = sorted({LOOPS[name].package for name in options.loops} - {""})
    shown = ("loops", "feeds", "nproc", "device", "rounds", "steps", "batch", "width", "seed", "quick")
    return {
        **machine.describe(options.cores),
        "libraries": {name: metadata.version(name) for name in packages},
        "options": {name: getattr(options, name) for name in shown},
    }


def measure(options: Options, add: Add, say: Say, done: Records) -> None:
    """All loops, in ranks that are started once."""
    for loop, package in () if done else options.left_out:
        add({"kind": "left_out", "loop": loop, "why": f"{package} is not installed"})
    say(f"starting {count(options.nproc, 'rank')} with {', '.join(options.loops)} ...")
    begun = bool(of_kind(done, "setup"))
    with running(partial(command, options, next_round(done)), options.threads, options.out / "failed") as seen:
        for record in seen:
            if record["kind"] != "setup" or not begun:
                add(record)


def keep(records: Records) -> Records:
    """Whole rounds; weights are compared anew at the end."""
    return whole_rounds([record for record in records if record["kind"] not in ("weights", "guard")])


BENCHMARK = Benchmark(
    "overhead", parse, describe, terminal.Progress, measure, report.render, as_json, terminal.show, quantities, keep
)

if __name__ == "__main__":
    sys.exit(main(BENCHMARK, sys.argv[1:]))
