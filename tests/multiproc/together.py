"""Several runs of ranks at once: the ranks of one wait for each other much of the time."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, TypeVar

from dist_toolkit.testing import RanksFailed, start_ranks

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Call:
    """What `start_ranks` is given."""

    function: Callable[..., Any]
    ranks: int
    args: tuple[Any, ...]
    env: Mapping[str, str] = field(default_factory=dict)


def run_together(calls: Mapping[Key, Call], timeout: float) -> dict[Key, list[Any] | RanksFailed]:
    """What each call returned, by rank, or how its ranks failed."""
    found: dict[Key, list[Any] | RanksFailed] = {}
    with ExitStack() as stack:
        started = {}
        for key, call in calls.items():
            started[key] = start_ranks(call.function, call.ranks, *call.args, env=call.env)
            stack.callback(started[key].kill)
        for key, ranks in started.items():
            outcomes = ranks.wait(timeout)
            failed = any(outcome.exitcode or outcome.error for outcome in outcomes)
            found[key] = RanksFailed(outcomes) if failed else [outcome.value for outcome in outcomes]
    return found
