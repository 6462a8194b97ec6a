"""The strategies by name. A new one is one file and one line here."""

from __future__ import annotations

import difflib
import importlib

from dist_toolkit.errors import ConfigError
from dist_toolkit.strategies.strategy import Strategy
from dist_toolkit.world import World

STRATEGIES = {
    "data_parallel": "dist_toolkit.strategies.data_parallel:DataParallel",
    "ddp": "dist_toolkit.strategies.ddp:DDP",
    "deepspeed": "dist_toolkit.strategies.deepspeed:DeepSpeed",
    "fsdp": "dist_toolkit.strategies.fsdp:FSDP",
    "single": "dist_toolkit.strategies.single:Single",
}


def resolve_strategy(wanted: str | Strategy, world: World) -> Strategy:
    """The strategy object for a name; `auto` is `single` in a world of one rank, and `ddp` otherwise.

    Raises:
        ConfigError: the name is unknown, or the strategy does not fit the number of ranks.
    """
    if isinstance(wanted, str):
        wanted = _by_name(wanted, world)
    wanted.check(world)
    return wanted


def _by_name(name: str, world: World) -> Strategy:
    if name == "auto":
        name = "ddp" if world.world_size > 1 else "single"
    if name not in STRATEGIES:
        known = ["auto", *sorted(STRATEGIES)]
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ConfigError(f"unknown strategy {name!r}; known: {', '.join(known)}{hint}")
    module, _, attribute = STRATEGIES[name].partition(":")
    strategy: Strategy = getattr(importlib.import_module(module), attribute)()
    return strategy
