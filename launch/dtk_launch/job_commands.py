"""The commands of `dtk` about jobs: parse and call."""

from __future__ import annotations

from pathlib import Path

import click

from dtk_launch.arguments import SCRIPT_SETTINGS


@click.command()
@click.argument("job", default="")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: a list, of one job for a JOB that is no array.")
def status(job: str, as_json: bool) -> None:
    """Show JOB, or all your jobs: state, what it waits for, nodes, step, pace, time left.

    JOB is a job id, of an array's task ID_TASK, a name in ./runs, or a path.
    """
    from dtk_launch import jobstatus

    jobstatus.show(job, as_json, Path.cwd())


@click.command()
@click.argument("job")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def cancel(job: str, as_json: bool) -> None:
    """End JOB, or take it out of the queue.

    JOB is a job id, of an array's task ID_TASK, a name in ./runs, or a path. Nothing is asked.
    """
    from dtk_launch import jobacts

    jobacts.cancel(job, as_json, Path.cwd())


@click.command(context_settings=SCRIPT_SETTINGS)
@click.argument("job")
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="[COMMAND...]")
@click.option("--node", default="", metavar="NAME", help="On this node of the job; default: its first.")
def attach(job: str, command: tuple[str, ...], node: str) -> None:
    """Run dtk top, or COMMAND, inside the running JOB, beside its ranks.

    JOB is a job id, of an array's task ID_TASK, a name in ./runs, or a path.
    """
    from dtk_launch import jobacts

    jobacts.attach(job, command, node, Path.cwd())


JOB_COMMANDS = (status, cancel, attach)
