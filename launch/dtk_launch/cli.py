"""The `dtk` command line: parse, call, print. No decisions are taken here."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NoReturn

import click

from dtk_launch import facts as host
from dtk_launch.arguments import SCRIPT_SETTINGS, options_command, rerun_command
from dtk_launch.config import resolve
from dtk_launch.doctor.command import doctor
from dtk_launch.errors import DtkError, PlanError
from dtk_launch.facts import HostFacts
from dtk_launch.given import check_value
from dtk_launch.job_commands import JOB_COMMANDS
from dtk_launch.launching import Launch, from_command_line
from dtk_launch.needs import check_needs
from dtk_launch.options import LaunchOptions, SubmitOptions
from dtk_launch.run_commands import RUN_COMMANDS
from dtk_launch.script import check_script


def main() -> None:
    """The console entry. A mistake of the user ends as one message on stderr and its exit code."""
    from dtk_launch.interrupt import quiet_interrupt

    try:
        with quiet_interrupt():
            app(prog_name="dtk")
    except DtkError as error:
        print(f"dtk: error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


def _version(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        own, torch = (host.installed_version(name) or "not installed" for name in ("dist_toolkit", "torch"))
        click.echo(f"dtk {own} (torch {torch}, Python {sys.version.split()[0]})")
        context.exit()


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version", is_flag=True, callback=_version, is_eager=True, expose_value=False, help="Print the versions and stop."
)
def app() -> None:
    """Launch, explain, submit and measure distributed PyTorch training."""


@options_command(app, LaunchOptions)
def launch(given: dict[str, Any]) -> None:
    """Run SCRIPT on every rank of this machine.

    Inside an srun step: on every rank of this node. Everything after SCRIPT belongs to the script, --help included.
    """
    planned = from_command_line(given)
    _warn(planned.hints())
    if planned.options.dry_run:
        _dry_run(planned)
    else:
        _start(planned, planned.record)


def _warn(lines: Iterable[str]) -> None:
    for line in lines:
        click.echo(f"dtk: warning: {line}", err=True)


def _dry_run(planned: Launch) -> None:
    from dtk_launch.streams import json_text

    print(json_text(planned.values()) if planned.options.json else planned.command.shell_text())


def _start(planned: Launch, record: Callable[[], dict[str, Any]]) -> NoReturn:
    from dtk_launch.supervisor import supervise

    def plan_text() -> str:
        from dtk_launch.record import text

        return text(record())

    if planned.options.preempt_test:
        from dtk_launch import preempt_test

        sys.exit(preempt_test.run(planned, plan_text))
    sys.exit(supervise(planned.plan, planned.command, plan_text, planned.options.json))


@options_command(app, LaunchOptions)
def explain(given: dict[str, Any]) -> None:
    """Show every decision of a launch and its source.

    Takes what launch takes and starts nothing.
    """
    planned = from_command_line(given)
    _warn(planned.hints())
    from dtk_launch import explain as texts
    from dtk_launch.streams import json_text

    if planned.options.json:
        click.echo(json_text(planned.values()))
    else:
        texts.print_table(planned.plan, planned.command)


@rerun_command(app)
def rerun(given: dict[str, Any]) -> None:
    """Launch a recorded run again.

    RUN is a name under ./runs, or a run directory. Options that are not given are those of the record, and it goes on
    in the same run directory unless a --name or --run-dir is given. What is not as it was is said first.
    """
    from dtk_launch import rerun as recorded

    run, exact, into = (given.pop(name) for name in ("run", "exact", "restore"))
    check_value("run", run, "command line")
    check_value("restore", into, "flag --restore")
    again = recorded.prepare(run, given, into or "")
    for line in again.notes:
        click.echo(f"dtk: note: {line}", err=True)
    for line in again.differing:
        click.echo(f"dtk: differs: {line}", err=True)
    if exact and again.differing:
        number = len(again.differing)
        raise PlanError(f"--exact, but {number} difference{'s' * (number > 1)}; drop --exact to start anyway")
    if again.launch.options.dry_run:
        _dry_run(again.launch)
    else:
        _start(again.launch, lambda: again.record)


@options_command(app, SubmitOptions)
def submit(given: dict[str, Any]) -> None:
    """Submit SCRIPT as a SLURM job and print its id.

    Everything after SCRIPT belongs to the script. With --dry-run, print the batch script instead.
    """
    facts = HostFacts.probe()
    settings = resolve(SubmitOptions, given, dict(facts.environ), facts.cwd)
    check_script(settings.options.script, settings.options.module, facts.cwd, settings.options.env)
    check_needs(settings.options, facts.cwd, dict(facts.environ), settings.sources)
    from dtk_launch import hints, jobs

    _warn(hints.unknown_variables(dict(facts.environ)))
    options = settings.options
    source = None if options.module else (facts.cwd / options.script).read_text(encoding="utf-8", errors="replace")
    if name := next(hints.misplaced(options.args, source), ""):
        _warn([hints.misplaced_words(name, options.script, "submit")])
    jobs.submit(options, facts)


@app.command("batch-step", hidden=True, context_settings=SCRIPT_SETTINGS)
@click.option("--run-dir", required=True)
@click.option("--max-stalls", type=click.IntRange(1), required=True)
@click.option("--elastic", is_flag=True)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def batch_step(run_dir: str, max_stalls: int, elastic: bool, command: tuple[str, ...]) -> None:
    """Run the srun COMMAND of a batch script, and requeue the job if it is to go on."""
    from dtk_launch import batch_step as batch

    sys.exit(batch.run(command, Path(run_dir), max_stalls, elastic))


@app.command()
@click.argument("folder", metavar="[DIR]", default=".")
@click.option("--force", is_flag=True, help="Overwrite files that are there.")
def init(folder: str, force: bool) -> None:
    """Write a train.py and a commented dtk.toml that run as they are.

    Into DIR, or the current folder. Files that are there are not overwritten.
    """
    from dtk_launch import starter

    check_value("folder", str(folder), "command line")
    click.echo(starter.write(Path(folder), force))


@app.command(context_settings={**SCRIPT_SETTINGS, "ignore_unknown_options": True}, add_help_option=False)
@click.argument("name", default="")
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
def bench(name: str, args: tuple[str, ...]) -> None:
    """Run a benchmark; without a name, list them.

    Everything after the name belongs to the benchmark, --help included.
    """
    from dtk_launch import bench as benchmarks

    benchmarks.run(name, args)


@app.command(context_settings={**SCRIPT_SETTINGS, "ignore_unknown_options": True}, add_help_option=False)
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
def ckpt(args: tuple[str, ...]) -> None:
    """List, show, verify, compare, convert and prune checkpoints.

    dtk ckpt --help lists the commands; each has its own --help.
    """
    from dtk_launch import checkpoints

    checkpoints.run(args)


for command in (*JOB_COMMANDS, *RUN_COMMANDS, doctor):
    app.add_command(command)


@app.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of a shell.

    For example: eval "$(dtk completion bash)"
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(app, {}, "dtk", "_DTK_COMPLETE").source())
