"""Arguments in words that are the same on all ranks where they mean the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import partial
from os import PathLike
from typing import Any

import torch


def in_words(value: Any) -> str:
    """Plain data and containers as they are, functions and classes by name, other objects by their class."""
    if isinstance(value, partial):
        given = [*map(in_words, value.args), *(f"{key}={in_words(item)}" for key, item in value.keywords.items())]
        return f"{in_words(value.func)}({', '.join(given)})"
    if is_dataclass(value) and not isinstance(value, type):
        given = [f"{field.name}={in_words(getattr(value, field.name))}" for field in fields(value)]
        return f"{type(value).__name__}({', '.join(given)})"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key!r}: {in_words(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(in_words, value))}]"
    if isinstance(value, (set, frozenset)):
        return "{" + ", ".join(sorted(map(in_words, value))) + "}"
    if isinstance(value, torch.Tensor):
        return str(value.tolist()) if value.numel() == 1 else f"a tensor {list(value.shape)}"
    if value is None or isinstance(value, (bool, int, float, str, PathLike, torch.dtype, torch.device)):
        return str(value)
    named = getattr(value, "__qualname__", None)
    return named if isinstance(named, str) else type(value).__name__


def describe_optimizer(optimizer: torch.optim.Optimizer) -> dict[str, str]:
    """Its class, and of each parameter group the number of parameters and the plain options."""
    told = {"its class": type(optimizer).__name__, "its number of groups": str(len(optimizer.param_groups))}
    for number, group in enumerate(optimizer.param_groups):
        for key, value in group.items():
            told[f"{key} of group {number}"] = str(len(value)) if key == "params" else in_words(value)
    return told
