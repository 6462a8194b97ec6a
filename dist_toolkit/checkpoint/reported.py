"""Metrics of the state that is saved next, as a script reports them."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from typing import Any

from dist_toolkit.errors import ConfigError


def as_numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The same as floats.

    Raises:
        ConfigError: one is no number.
    """
    return {name: _number(name, value) for name, value in metrics.items()}


def _number(name: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        given = type(value).__name__ if hasattr(value, "shape") else reprlib.repr(value)
        raise ConfigError(
            f"report({name}={given}) is not a number ({error}); pass a float, or a tensor with one element"
        ) from None
