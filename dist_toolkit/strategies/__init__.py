"""Strategies: how a model is trained over the ranks, behind one Engine shape."""

from dist_toolkit.strategies.ema import EMA
from dist_toolkit.strategies.engine import Engine
from dist_toolkit.strategies.registry import STRATEGIES, resolve_strategy
from dist_toolkit.strategies.same_call import set_up
from dist_toolkit.strategies.strategy import Strategy

__all__ = ["EMA", "STRATEGIES", "Engine", "Strategy", "resolve_strategy", "set_up"]
