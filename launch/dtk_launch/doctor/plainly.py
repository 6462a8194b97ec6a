"""Frozen dataclasses as plain values and back: how the facts of a node come to the first one. Pure."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar, cast

T = TypeVar("T")


def restore(kind: type[T], values: Mapping[str, Any]) -> T:
    """A dataclass of what its `asdict` is after JSON: lists are tuples again. Raises KeyError, TypeError."""
    hints = typing.get_type_hints(kind)
    return kind(**{field.name: _value(hints[field.name], values[field.name]) for field in fields(cast(Any, kind))})


def _value(hint: Any, value: Any) -> Any:
    origin, inside = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return None if value is None else _value(next(one for one in inside if one is not type(None)), value)
    if origin is tuple:
        repeated = inside[-1] is Ellipsis
        return tuple(_value(inside[0] if repeated else inside[at], item) for at, item in enumerate(value))
    return restore(hint, value) if is_dataclass(hint) and isinstance(hint, type) else value
