"""How the ranks are started, and where those of an interrupted run go on."""

from __future__ import annotations

from pathlib import Path

from bench_parts.ranks import launch
from bench_parts.records import Records

from .arguments import Options
from .cases import all_cases

_RANK = Path(__file__).resolve().parent.parent / "_comm_rank.py"


def command(options: Options, done: Records, run_dir: Path) -> list[str]:
    """`dtk launch` with the ranks, on all nodes.

    Args:
        done: records that are there. Turns are the same in every run, so what is done is the first of them.
    """
    words = ["--known", known(options, done), "--skip", str(sum(r["kind"] == "block" for r in done))]
    for name in ("backends", "operations", "sizes"):
        words += [f"--{name}", ",".join(map(str, getattr(options, name)))]
    for name in ("nproc", "nodes", "rounds", "iterations", "seed", "dtype"):
        words += [f"--{name}", str(getattr(options, name))]
    return launch(options.nproc, run_dir, options.device, _RANK, words, options.nodes)


def known(options: Options, done: Records) -> str:
    """`number of a case=operations in a block` of the cases of `done`: the blocks that follow are as long."""
    seen = {(r["backend"], r["scope"], r["operation"], r["size"]): r["iterations"] for r in done if r["kind"] == "case"}
    cases = all_cases(options.backends, options.nodes, options.nproc, options.operations, options.sizes)
    pairs = ((number, seen.get((c.backend, c.scope, c.operation, c.size))) for number, c in enumerate(cases))
    return ",".join(f"{number}={iterations}" for number, iterations in pairs if iterations)
