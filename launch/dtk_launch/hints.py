"""What is probably not meant, though it is allowed: a line on stderr each. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields

from dtk_launch.config import env_name
from dtk_launch.options import SubmitOptions, flag_of
from dtk_launch.plan import LaunchPlan

_OTHERS = (
    "DTK_CPUS", "DTK_SUPERVISOR", "DTK_VITALS", "DTK_FAULTS", "DTK_DESYNC_GUARD", "DTK_NODE_TIMEOUT",
    "DTK_STORAGE_ATTEMPTS", "DTK_STORAGE_SECONDS", "DTK_INIT_METHOD", "DTK_STOP", "DTK_LIVE", "DTK_DEVICE",
)  # fmt: skip
"""Of docs/wire.md, beside those that set an option."""
_ALIKE = 0.8
"""difflib's ratio of two names without `DTK_`: two letters of five changed places, one of five or more is wrong."""
_OURS_ALONE = (
    "nproc", "nodes", "node_rank", "rdzv", "max_restarts", "hang_timeout", "on_hang", "preempt_signal", "preempt_test",
    "grace", "cpu_bind", "quiet_ranks", "dry_run",
)  # fmt: skip
"""Options that a script is unlikely to have, with a parser in another file; not so --name, --device or --precision."""


def known_variables() -> set[str]:
    """Every DTK_* that something reads."""
    return {name for f in fields(SubmitOptions) if (name := env_name(f.name))} | set(_OTHERS)


def hints(plan: LaunchPlan, environ: Mapping[str, str], source: str | None) -> tuple[str, ...]:
    """The lines for a launch; `source` is the text of the script, None where it is not at hand."""
    return (*unknown_variables(environ), *_misplaced(plan, source), *_port(plan))


def unknown_variables(environ: Mapping[str, str]) -> Iterator[str]:
    """A line for each DTK_* that nothing reads and that resembles one that something does."""
    known = {name.removeprefix("DTK_"): name for name in known_variables()}
    for name in sorted(environ):
        rest = name.removeprefix("DTK_")
        if rest != name and rest not in known:
            alike = difflib.get_close_matches(rest, known, n=1, cutoff=_ALIKE)
            if alike:
                yield f"{name} is not known, and nothing of dtk reads it; did you mean {known[alike[0]]}?"


def _misplaced(plan: LaunchPlan, source: str | None) -> Iterator[str]:
    known = {decision.source for decision in plan.decisions}  # who gives it before the script too, knows what is whose
    for name in misplaced(plan.target.args, source):
        if f"flag {flag_of(name)}" not in known:
            yield misplaced_words(name, plan.target.script, "launch")
            return


def misplaced(args: Sequence[str], source: str | None) -> Iterator[str]:
    """Options of dtk's alone among the script's arguments, which its source (None: not at hand) does not mention."""
    for name in _OURS_ALONE:
        flag = flag_of(name)
        given = any(word == flag or word.startswith(f"{flag}=") for word in args)
        if given and source is not None and flag not in source and name not in source:
            yield name


def misplaced_words(name: str, script: str, command: str) -> str:
    """What is wrong with that option, and where it belongs."""
    flag = flag_of(name)
    return (
        f"{flag} stands after {script} and so is handed to it, which does not mention it; options of dtk stand before "
        f"the script: dtk {command} {flag} ... {script}"
    )


def _port(plan: LaunchPlan) -> Iterator[str]:
    for decision in plan.decisions:
        if decision.key == "rendezvous" and "may be taken" in decision.why:
            yield f"--rdzv {decision.value}: {decision.why}; a port below them, such as 29400, is nobody else's"
