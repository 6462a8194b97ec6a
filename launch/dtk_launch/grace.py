"""What the ranks are told when the run is to end, and how long they may take: the decision. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from dtk_launch.durations import parse_seconds
from dtk_launch.errors import PlanError, unknown
from dtk_launch.options import PREEMPT_SIGNALS, LaunchOptions
from dtk_launch.values import version_of

AGENT_GRACE = 30
"""Seconds that torchrun gives its ranks once it ends them; another number can be asked for since torch 2.12."""
_TUNABLE_SINCE = (2, 12)


@dataclass(frozen=True)
class Stop:
    """How a run is asked to end. `signal` is what the ranks get, without SIG; '' is what dtk itself got."""

    signal: str
    grace: float
    """Seconds from the notice to SIGKILL."""
    agent_grace: int
    """Seconds that torchrun waits for its ranks after a signal of its own."""


def check_stop(options: LaunchOptions, sources: Mapping[str, str] | None = None) -> None:
    """Refuse signals and lengths of time that are none. Used for submitted jobs too. Raises PlanError."""
    named = _named(options.preempt_signal)
    if named and named not in PREEMPT_SIGNALS:
        where = f" ({sources['preempt_signal']})" if sources else ""
        raise PlanError(
            f"--preempt-signal={options.preempt_signal}{where}: {unknown('signal', named, PREEMPT_SIGNALS)}"
        )
    parse_seconds("--grace", options.grace, sources["grace"] if sources else "")
    if options.preempt_test:
        parse_seconds("--preempt-test", options.preempt_test)


def decide_stop(
    options: LaunchOptions, sources: Mapping[str, str], torch_version: str, nodes: int, note: Callable[..., None]
) -> Stop:
    """The decision, each part of it noted. Raises PlanError."""
    check_stop(options, sources)
    if options.preempt_test and nodes > 1:
        raise PlanError(
            f"--preempt-test={options.preempt_test} is for one node, but this is a launch on {nodes}; try it on one, "
            "and send dtk of any node SIGTERM to try it on all"
        )
    name, grace = _named(options.preempt_signal), parse_seconds("--grace", options.grace)
    if name:
        why = f"SIGTERM, SIGUSR1 and SIGUSR2 are the notice, and the ranks get SIG{name} for it"
    else:
        why = "the ranks get what dtk gets; SIGUSR1 and SIGUSR2 start no grace"
    note("preempt_signal", name or "same", sources["preempt_signal"], why)
    tunable = version_of(torch_version) >= _TUNABLE_SINCE
    agent = math.ceil(grace) + 1 if tunable and grace > AGENT_GRACE else AGENT_GRACE
    why = "from the notice to SIGKILL"
    if grace > agent:
        why += f"; torch {torch_version} kills what is left {AGENT_GRACE} s after the end of the first rank"
    note("grace", f"{grace:g}", sources["grace"], why)
    return Stop(name, grace, agent)


def stop_words(options: LaunchOptions) -> list[str]:
    """The options of this file as words of a command line, where they are not the default."""
    words = ["--preempt-signal", _named(options.preempt_signal)] if options.preempt_signal else []
    words += ["--grace", options.grace] if options.grace != LaunchOptions.grace else []
    return words + (["--preempt-test", options.preempt_test] if options.preempt_test else [])


def _named(text: str) -> str:
    return text.strip().upper().removeprefix("SIG")
