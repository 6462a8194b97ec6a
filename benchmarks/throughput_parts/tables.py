"""What can be compared: the strategies and the models, by name. Names of functions, so reading this needs no torch."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class StrategySpec:
    """How a strategy is started and what its ranks do."""

    title: str
    launched: bool
    """Whether it runs as --nproc ranks under `dtk launch`; else as one process with the cores of all of them."""
    engine: str
    """The strategy of dist_toolkit that its ranks set up."""


@dataclass(frozen=True)
class ModelSpec:
    """A model and the work it is measured on."""

    build: str
    """`module:function` of this package, from nothing to the model."""
    words: str
    shape: tuple[int, ...]
    """Of one input sample."""
    classes: int
    batch: int
    """Global batch size unless one is asked for."""
    needs: tuple[str, ...] = ()
    """Import names that the extra `bench` brings."""


STRATEGIES = {
    "single": StrategySpec("one process", launched=False, engine="single"),
    "dp": StrategySpec("DataParallel", launched=False, engine="data_parallel"),
    "ddp": StrategySpec("DDP", launched=True, engine="ddp"),
}

MODELS = {
    "mlp": ModelSpec("models:mlp", "three linear layers, 784-1024-1024-10", (784,), 10, 512),
    "resnet18": ModelSpec(
        "models:resnet18", "torchvision's ResNet-18 on 32x32 images", (3, 32, 32), 10, 64, ("torchvision",)
    ),
}

BASELINES = ("dp", "single")
"""What the others are compared with: the first of these that is measured, else the first strategy that was named."""


def load(path: str) -> Callable[..., Any]:
    """The function at `module:function` of this package."""
    module, _, name = path.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(f".{module}", __package__), name)
    return found
