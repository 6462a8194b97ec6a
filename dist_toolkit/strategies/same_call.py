"""Whether the ranks ask rt.setup for the same thing: else they would wait for each other for ever, or train apart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields

import torch

from dist_toolkit.process_group import Group
from dist_toolkit.strategies.engine import Engine
from dist_toolkit.strategies.in_words import in_words
from dist_toolkit.strategies.request import SetupRequest
from dist_toolkit.strategies.same_model import check_same, together
from dist_toolkit.strategies.strategy import Strategy


def set_up(read: Callable[[], tuple[Strategy, SetupRequest]], group: Group) -> Engine:
    """The engine of a strategy and a request that `read` gives, the same on every rank. Collective.

    Raises:
        ConfigError: `read` refuses on some rank, or ranks were given different arguments; on every rank.
    """
    strategy, request = together("rt.setup", read, group)
    check_same("the call of rt.setup", describe_call(strategy, request), group)
    return strategy.setup(request)


def describe_call(strategy: Strategy, request: SetupRequest) -> dict[str, str]:
    """The arguments of rt.setup but the model, in words that are the same where they mean the same."""
    told = {"strategy": strategy.name}
    for option in fields(strategy):  # type: ignore[arg-type]
        if option.name not in strategy.compared_later:
            told[f"{type(strategy).__name__}({option.name}=...)"] = in_words(getattr(strategy, option.name))
    told |= {name: in_words(getattr(request, name)) for name in ("precision", "ema", "scheduler")}
    given = request.optimizer
    return told | {"optimizer": type(given).__name__ if isinstance(given, torch.optim.Optimizer) else in_words(given)}
