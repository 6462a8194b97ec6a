"""The program behind `dtk ckpt`: parse, call, print. No decisions are taken here."""

from __future__ import annotations

import argparse
import json
import os
import sys

from dist_toolkit.checkpoint.tool import convert, diff, listing, prune, show, verify
from dist_toolkit.checkpoint.tool.arguments import help_text, parse
from dist_toolkit.checkpoint.tool.outcome import REFUSED, Outcome, UsageError
from dist_toolkit.checkpoint.tool.terminal import Style, ask, can_ask, style_of

_INTERRUPTED, _BROKEN_PIPE = 130, 141  # as a shell reports SIGINT and SIGPIPE


def main(argv: list[str]) -> int:
    """Run one command and return its exit code."""
    if not argv:
        print(help_text())
        return REFUSED
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        given = parse(argv)
        outcome = _run(given, Style() if given.json else style_of(sys.stdout))
        print(json.dumps(outcome.data, indent=1) if given.json else "\n".join(outcome.lines), flush=True)
    except UsageError as error:
        return _refuse(str(error))
    except BrokenPipeError:  # `dtk ckpt ls ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _BROKEN_PIPE
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        return _refuse(f"{place}{error.strerror or error}; nothing more was done")
    except RecursionError:
        return _refuse("names or values in the record are nested too deep to be shown")
    except KeyboardInterrupt:
        return _INTERRUPTED
    return outcome.code


def _run(given: argparse.Namespace, style: Style) -> Outcome:
    if given.command == "ls":
        return listing.run(given.root, style)
    if given.command == "show":
        return show.run(given.path, given.step, given.depth, given.all, style)
    if given.command == "verify":
        return verify.run(given.path, given.step, given.all, style)
    if given.command == "diff":
        paths = [*given.paths, *([given.other] if given.other is not None else [])]
        return diff.run(paths, given.step, given.only, given.all, style)
    if given.command == "convert":
        asked = convert.Request(
            given.path, given.out, given.step, given.to, given.engine, given.all, given.force, tuple(given.strip),
            given.dtype, given.config, given.max_shard_size, given.source, given.model_key, given.optimizer_key,
            given.scheduler_key, given.param_names,
        )  # fmt: skip
        return convert.run(asked, style)
    rules = prune.Rules(given.keep_last, given.keep_every, given.keep_best, given.verify)
    return prune.run(given.root, rules, given.dry_run, _Agreement(given), style)


class _Agreement:
    """Whether to delete: --yes, or a person's answer to the question."""

    def __init__(self, given: argparse.Namespace) -> None:
        self._yes, self._json = given.yes, given.json

    def __call__(self, lines: list[str], question: str) -> bool:
        """Show the plan and ask.

        Raises:
            UsageError: nobody is there to answer.
        """
        if self._yes:
            return True
        if self._json or not can_ask():
            raise UsageError(f"{question} nobody is there to answer; pass --yes to delete, --dry-run to look")
        print("\n".join(lines), file=sys.stderr)
        return ask(question)


def _refuse(message: str) -> int:
    print(f"dtk ckpt: error: {message}", file=sys.stderr)
    return REFUSED
