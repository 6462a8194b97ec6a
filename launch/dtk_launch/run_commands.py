"""The commands of `dtk` about runs, by their directories: parse and call."""

from __future__ import annotations

import os
from pathlib import Path

import click


@click.command()
@click.argument("run")
@click.option("--once", is_flag=True, help="Print one table and stop, on a terminal too.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON; with --interval one line at a time.")
@click.option("--interval", type=click.FloatRange(0.1), help="Seconds between two looks. Without a terminal: repeat.")
def top(run: str, once: bool, as_json: bool, interval: float | None) -> None:
    """Watch the ranks of RUN: step, pace, loss, memory, who is late or slow.

    RUN is a name in ./runs, or a path. q or Ctrl-C leaves; without a terminal one table is printed.
    """
    from dtk_launch import runref
    from dtk_launch import top as screen

    screen.show(runref.find_run(run, Path.cwd()), once, as_json, interval)


@click.command()
@click.argument("run")
@click.option(
    "--rank", "-r", "ranks", multiple=True, metavar="RANKS", help="These ranks: 3, 0,2-5 or others. Repeatable."
)
@click.option("--follow", "-f", is_flag=True, help="Go on with what comes, restarts included, until the run ends.")
@click.option("--err", "only_err", is_flag=True, help="What the ranks wrote to stderr alone.")
@click.option("--out", "only_out", is_flag=True, help="What the ranks wrote to stdout alone.")
@click.option("--tail", type=click.IntRange(0), metavar="N", help="Begin with the last N lines of each file.")
@click.option("--no-prefix", is_flag=True, help="Leave out the rank before each line.")
def logs(
    run: str, ranks: tuple[str, ...], follow: bool, only_err: bool, only_out: bool, tail: int | None, no_prefix: bool
) -> None:
    """Print what the ranks of RUN wrote, rank by rank.

    RUN is a name in ./runs, a path, or the id of a job. With -f: the last ten lines of each, then as it comes; a job in
    the queue is waited for.
    """
    from dtk_launch import joblogs
    from dtk_launch import logs as output

    ref = joblogs.find(run, Path.cwd())
    wanted = output.asked_ranks(ref.folder, ",".join(ranks)) if ranks else None
    suffixes = ("log", "err") if only_err == only_out else ("err",) if only_err else ("log",)
    joblogs.show(ref, output.LogOptions(wanted, suffixes, tail, not no_prefix), follow, os.environ)


@click.command()
@click.argument("folder", metavar="[DIR]", default="")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def runs(folder: str, as_json: bool) -> None:
    """List the runs in DIR, or in ./runs: state, steps, last checkpoint, where they hang, how they ended."""
    from dtk_launch import runs as listing

    listing.show(Path(folder or "runs").expanduser(), bool(folder), as_json)


@click.command()
@click.argument("run")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with the whole stacks.")
def stacks(run: str, as_json: bool) -> None:
    """Show where the ranks of a running run are.

    RUN is a name in ./runs, or a path. Nothing of the run is changed or ended.
    """
    from dtk_launch import runref, whereabouts

    whereabouts.show(runref.find_run(run, Path.cwd()), as_json)


RUN_COMMANDS = (top, logs, runs, stacks)
