"""`dtk bench comm`: how fast collective operations are over sizes, for gloo and nccl, within and across nodes.

Files and exit codes: see bench_parts.driver.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from bench_parts import machine
from bench_parts.driver import Benchmark, main
from bench_parts.markdown import count
from bench_parts.processes import ProcessFailed
from bench_parts.ranks import running
from bench_parts.records import Record, Records
from bench_parts.rounds import of_kind
from comm_parts import report, terminal
from comm_parts.arguments import Options, parse
from comm_parts.ranks import command
from comm_parts.summary import as_json, quantities, wrong

Add, Say = Callable[[Record], None], Callable[[str], None]


def describe(options: Options) -> Mapping[str, Any]:
    """The first record."""
    shown = ("operations", "sizes", "backends", "nproc", "nodes", "dtype", "rounds", "iterations", "seed")
    return {**machine.describe(options.cores), "options": {name: getattr(options, name) for name in shown}}


def measure(options: Options, add: Add, say: Say, done: Records) -> None:
    """All cases, in ranks that are started once."""
    where = f" on each of {options.nodes} nodes" if options.nodes > 1 else ""
    say(f"starting {count(options.nproc, 'rank')}{where} with {', '.join(options.backends)} ...")
    known = {_key(record) for record in done if record["kind"] != "block"}
    seen: list[Record] = []
    start = partial(command, options, done)
    with running(start, options.threads, options.out / "failed", options.nodes) as records:
        for record in records:
            if _key(record) not in known:
                add(record)
            seen.append(record)
    if bad := wrong(seen):
        raise ProcessFailed(f"wrong results: {', '.join(bad)}", what="a result was wrong")


def keep(records: Records) -> Records:
    """Rounds in which every case has its block."""
    blocks, cases = Counter(record["round"] for record in of_kind(records, "block")), len(of_kind(records, "case"))
    return [r for r in records if r["kind"] not in ("block", "idle") or blocks[r["round"]] == cases]


def _key(record: Record) -> tuple[object, ...]:
    """What a run that is resumed says again."""
    return tuple(record.get(name) for name in ("kind", "backend", "scope", "operation", "size", "round"))


BENCHMARK = Benchmark(
    "comm", parse, describe, terminal.Progress, measure, report.render, as_json, terminal.show, quantities, keep
)

if __name__ == "__main__":
    sys.exit(main(BENCHMARK, sys.argv[1:]))
