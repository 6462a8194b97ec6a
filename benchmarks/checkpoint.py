"""`dtk bench checkpoint`: what saving and loading cost with dist_toolkit, torch and others, against the bytes alone.

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
from checkpoint_parts import report, terminal
from checkpoint_parts.arguments import Options, parse
from checkpoint_parts.place import filesystem_of, temporary_place
from checkpoint_parts.ranks import command
from checkpoint_parts.summary import as_json, quantities
from checkpoint_parts.tables import METHODS

Add, Say = Callable[[Record], None], Callable[[str], None]


def describe(options: Options) -> Mapping[str, Any]:
    """The first record."""
    packages = sorted({METHODS[name].package for name in options.methods} - {""})
    shown = ("methods", "cases", "nproc", "rounds", "mib", "tensors", "settle", "seed", "quick")
    return {
        **machine.describe(options.cores),
        "filesystem": filesystem_of(options.dir.resolve()),
        "libraries": {name: metadata.version(name) for name in packages},
        "options": {name: getattr(options, name) for name in shown},
    }


def measure(options: Options, add: Add, say: Say, done: Records) -> None:
    """All methods, in ranks that are started once."""
    begun = bool(of_kind(done, "setup"))
    for method, package in () if done else options.left_out:
        add({"kind": "left_out", "method": method, "why": f"{package} is not installed"})
    say(f"starting {count(options.nproc, 'rank')} with {', '.join(options.methods)} ...")
    with (
        temporary_place(options.dir) as folder,
        running(partial(command, options, folder, next_round(done)), options.threads, options.out / "failed") as seen,
    ):
        for record in seen:
            if record["kind"] != "setup" or not begun:
                add(record)


BENCHMARK = Benchmark(
    "checkpoint", parse, describe, terminal.Progress, measure, report.render, as_json, terminal.show, quantities,
    whole_rounds,
)  # fmt: skip

if __name__ == "__main__":
    sys.exit(main(BENCHMARK, sys.argv[1:]))
