"""A checkpointer from what a script holds."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from dist_toolkit.checkpoint.checkpointer import Checkpointer
from dist_toolkit.checkpoint.goal import note_goal
from dist_toolkit.checkpoint.layout import parse_dir
from dist_toolkit.checkpoint.parts import Part, build_parts
from dist_toolkit.checkpoint.retention import Retention
from dist_toolkit.checkpoint.schedule import Schedule
from dist_toolkit.errors import ConfigError
from dist_toolkit.process_group import Group
from dist_toolkit.signals import Signals, StopRequest
from dist_toolkit.storage import Storage


def build_checkpointer(
    group: Group, storage: Storage, engines: Mapping[str, Any], loaders: Mapping[str, Any],
    state: Mapping[str, Any] | None, rng: Part, *, schedule: Schedule, retention: Retention, waive: Collection[str],
    background: bool, signals: Signals, run_dir: Path | None,
) -> Checkpointer:  # fmt: skip
    """See `Runtime.checkpointer`. In `run_dir`, if there is one, the goal of the run is noted.

    Raises:
        ConfigError: an object has no state, or is a loader that keeps no position; the place is one checkpoint.
    """
    parent, _, last = storage.root.rstrip("/").rpartition("/")
    if parse_dir(last) is not None and not parent.endswith(":/"):  # a bucket may have any name
        raise ConfigError(f"{storage.root} has the name of one checkpoint; pass the directory that holds it, {parent}")
    if state is not None and not isinstance(state, Mapping):
        raise ConfigError(f"state={type(state).__name__} is not a dict; pass state={{'name': object}}")
    passing = [name for name, given in loaders.items() if not getattr(given, "train", True)]
    if passing:
        raise ConfigError(f"{passing[0]} is an evaluation loader, which keeps no position; pass train=True to make it")
    return Checkpointer(
        storage,
        group,
        [*build_parts(engines, {**loaders, **(state or {})}), rng],
        schedule=schedule,
        retention=retention,
        waive=waive,
        background=background,
        stop=StopRequest(group, signals),
        progress=lambda: [engine.steps_taken for engine in engines.values()],
        **({} if run_dir is None else {"note_goal": partial(note_goal, run_dir)}),
    )


def named(default: str, given: Any) -> dict[str, Any]:
    """One object under its default name, or several by name."""
    if given is None:
        return {}
    return dict(given) if isinstance(given, Mapping) else {default: given}
