"""An options dataclass as click parameters, so that each option stands in one place: options.py."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import Field
from typing import Any

import click

from dtk_launch.given import check_repeats
from dtk_launch.options import LaunchOptions, field_docs, flag_of, option_fields

# Everything after SCRIPT belongs to the script: click must not look for options there.
SCRIPT_SETTINGS = {"allow_interspersed_args": False}


def options_command(
    group: click.Group, kind: type[LaunchOptions]
) -> Callable[[Callable[[dict[str, Any]], None]], click.Command]:
    """Add `function(given)` to the group as a command with the options of `kind`. In `given`, None means not given."""

    return _decorator(group, _parameters(kind), SCRIPT_SETTINGS)


def rerun_command(group: click.Group) -> Callable[[Callable[[dict[str, Any]], None]], click.Command]:
    """Add `function(given)` as a command that takes a RUN, and options in place of the recorded ones."""
    docs = field_docs()
    recorded = [f for f in option_fields(LaunchOptions) if f.name not in ("profile", "module")]
    parameters = [
        click.Option(["--exact"], is_flag=True, help="Refuse to start if anything that is recorded differs."),
        click.Option(["--restore"], metavar="DIR", help="Make the recorded source tree in DIR and start there."),
        *(_option(f, docs[f.name]) for f in recorded),
        click.Argument(["run"], metavar="RUN"),
        click.Argument(["args"], nargs=-1, metavar="[-- ARGS...]", type=click.UNPROCESSED),
    ]
    return _decorator(group, parameters, {})


def partial_command(
    name: str, kind: type[LaunchOptions], fields: Iterable[str], help: str, words: Mapping[str, str]
) -> click.Command:
    """A command with these options of `kind`, which leaves everything else as it is, in its order, to `args`.

    `words`: help of options that is not that of `kind`. Its callback returns what was given, None for what was not.
    """
    docs, wanted = {**field_docs(), **words}, set(fields)
    parameters: list[click.Parameter] = [_option(f, docs[f.name]) for f in option_fields(kind) if f.name in wanted]
    parameters.append(click.Argument(["args"], nargs=-1, metavar="[ARGS]...", type=click.UNPROCESSED))
    settings = {"ignore_unknown_options": True, "help_option_names": ["-h", "--help"]}
    return click.Command(name, params=parameters, callback=_given, help=help, context_settings=settings)


def _given(**values: Any) -> dict[str, Any]:
    """Without what was left out. Not `in ((), False)`: a 0 that was given is not what was left out."""
    return {name: None if value is False or value == () else value for name, value in values.items()}


def _decorator(
    group: click.Group, parameters: list[click.Parameter], settings: dict[str, Any]
) -> Callable[[Callable[[dict[str, Any]], None]], click.Command]:
    def decorate(function: Callable[[dict[str, Any]], None]) -> click.Command:
        def callback(**values: Any) -> None:
            function(_given(**values))

        command = click.Command(
            function.__name__,
            params=parameters,
            callback=callback,
            help=function.__doc__,
            context_settings=settings,
        )
        group.add_command(command)
        return command

    return decorate


def _parameters(kind: type[LaunchOptions]) -> list[click.Parameter]:
    docs = field_docs()
    return [
        *(_option(f, docs[f.name]) for f in option_fields(kind)),
        click.Argument(["script"], metavar="SCRIPT"),
        click.Argument(["args"], nargs=-1, metavar="[ARGS]...", type=click.UNPROCESSED),
    ]


def _option(f: Field[Any], doc: str) -> click.Option:
    flags = f.metadata.get("flags") or (flag_of(f.name),)
    if isinstance(f.default, bool):
        return click.Option([*flags, f.name], is_flag=True, default=False, help=doc)
    return click.Option(
        [*flags, f.name],
        type=click.INT if isinstance(f.default, int) else click.STRING,
        multiple=True,  # where one value is meant, so that a second is seen
        callback=None if isinstance(f.default, tuple) else _only,
        metavar=f.metadata.get("metavar") or f.name.upper(),
        help=doc,
        shell_complete=_complete(f.metadata.get("choices", ())),
    )


def _only(_context: click.Context, parameter: click.Parameter, values: tuple[Any, ...]) -> Any:
    check_repeats(str(parameter.name), values)
    return values[-1] if values else None


def _complete(choices: tuple[str, ...]) -> Callable[[click.Context, click.Parameter, str], list[Any]] | None:
    """Complete from a table; None leaves it to click."""
    if not choices:
        return None
    return lambda _context, _parameter, typed: [choice for choice in choices if choice.startswith(typed)]
