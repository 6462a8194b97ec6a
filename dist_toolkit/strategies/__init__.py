"""Strategies: how a model is trained over the ranks, behind one Engine shape."""

from dist_toolkit.strategies.base import Engine, Strategy
from dist_toolkit.strategies.ema import EMA
from dist_toolkit.strategies.registry import STRATEGIES, resolve_strategy

__all__ = ["EMA", "STRATEGIES", "Engine", "Strategy", "resolve_strategy"]
