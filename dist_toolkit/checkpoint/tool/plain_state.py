"""The plain state in `values`: as the program had it, and what differs between two. Pure."""

from __future__ import annotations

from typing import Any

ABSENT = object()
"""Stands for a value that only the other state has."""


def decoded(skeleton: Any) -> Any:
    """JSON with the words `$tuple`, `$dict` and `$float` undone; tuples become lists, infinite and nan floats texts."""
    if isinstance(skeleton, list):
        return [decoded(item) for item in skeleton]
    if not isinstance(skeleton, dict):
        return skeleton
    if len(skeleton) == 1:
        ((tag, value),) = skeleton.items()
        if tag == "$float":
            return str(value)
        if tag == "$tuple" and isinstance(value, list):
            return [decoded(item) for item in value]
        if tag == "$dict" and isinstance(value, list):
            return {repr(key): decoded(item) for key, item in value}
    return {key: decoded(item) for key, item in skeleton.items()}


def differences(a: Any, b: Any, path: str = "") -> list[tuple[str, Any, Any]]:
    """(path, in a, in b) wherever two decoded states differ; ABSENT where only the other has it."""
    if isinstance(a, dict) and isinstance(b, dict):
        keys: list[Any] = [*a, *(key for key in b if key not in a)]
        pairs = [(key, a.get(key, ABSENT), b.get(key, ABSENT)) for key in keys]
    elif isinstance(a, list) and isinstance(b, list):
        longest = range(max(len(a), len(b)))
        pairs = [(i, a[i] if i < len(a) else ABSENT, b[i] if i < len(b) else ABSENT) for i in longest]
    else:
        same = type(a) is type(b) and a == b
        return [] if same else [(path, a, b)]
    return [row for key, x, y in pairs for row in differences(x, y, f"{path}.{key}" if path else str(key))]
