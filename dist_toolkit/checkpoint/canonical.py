"""Between a state_dict and what a checkpoint holds: named tensors, and plain JSON for the rest. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from dist_toolkit.errors import NotSerializable

_MARK = "$"
_BITS = 8192  # of an integer; Python reads decimal numbers of up to 4,300 digits
_DEEPEST = (
    60  # levels of a state; a record may have 200, and a tuple or a dict with other keys than strings takes three
)


def flatten(prefix: str, state: Any) -> tuple[dict[str, torch.Tensor], Any]:
    """(tensors by key, the rest as JSON in which `{"$tensor": key}` stands for a tensor).

    Keys are `prefix` and the path of dict keys and list positions, joined by dots.

    Raises:
        NotSerializable: a value is neither a tensor nor plain data; names its key.
    """
    tensors: dict[str, torch.Tensor] = {}
    return tensors, _encode(prefix, state, tensors)


def unflatten(skeleton: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    """The state that `flatten` took apart, with tensors from `tensors`."""
    if isinstance(skeleton, list):
        return [unflatten(item, tensors) for item in skeleton]
    if not isinstance(skeleton, dict):
        return skeleton
    if len(skeleton) == 1:
        (tag, value), *_ = skeleton.items()
        if tag == "$tensor":
            return tensors[value]
        if tag == "$float":
            return float(value)
        if tag == "$tuple":
            return tuple(unflatten(item, tensors) for item in value)
        if tag == "$dict":
            return {unflatten(key, tensors): unflatten(item, tensors) for key, item in value}
    return {key: unflatten(item, tensors) for key, item in skeleton.items()}


def tensor_keys(skeleton: Any) -> set[str]:
    """The tensors that a skeleton refers to."""
    if isinstance(skeleton, list):
        return {key for item in skeleton for key in tensor_keys(item)}
    if not isinstance(skeleton, dict):
        return set()
    if len(skeleton) == 1 and "$tensor" in skeleton:
        return {skeleton["$tensor"]}
    return {key for item in skeleton.values() for key in tensor_keys(item)}


def _encode(key: str, value: Any, tensors: dict[str, torch.Tensor], depth: int = 0) -> Any:
    if depth > _DEEPEST:
        raise NotSerializable(
            key, value, f"lies {depth} levels deep, more than {_DEEPEST}; does the state hold itself?"
        )
    if isinstance(value, torch.Tensor):
        if key in tensors:
            raise NotSerializable(key, value, "has the name of another, as 'a.b' and {'a': {'b': ...}} have; rename it")
        tensors[key] = value.detach()
        return {"$tensor": key}
    if isinstance(value, int) and value.bit_length() > _BITS:
        raise NotSerializable(key, value, f"has {value.bit_length()} bits, more than {_BITS}; save it as a string")
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"$float": repr(float(value))}
    if isinstance(value, tuple):
        return {"$tuple": [_encode(f"{key}.{i}", item, tensors, depth + 1) for i, item in enumerate(value)]}
    if isinstance(value, list):
        return [_encode(f"{key}.{i}", item, tensors, depth + 1) for i, item in enumerate(value)]
    if isinstance(value, Mapping):
        return _encode_mapping(key, value, tensors, depth + 1)
    raise NotSerializable(key, value)


def _encode_mapping(key: str, value: Mapping[Any, Any], tensors: dict[str, torch.Tensor], depth: int) -> Any:
    plain = all(type(name) is str for name in value) and not (len(value) == 1 and next(iter(value)).startswith(_MARK))
    if plain:
        return {name: _encode(f"{key}.{name}", item, tensors, depth) for name, item in value.items()}
    pairs = []
    for name, item in value.items():
        if not isinstance(name, (str, int, bool)) and name is not None:
            raise NotSerializable(f"{key}.{name}", name)
        pairs.append([name, _encode(f"{key}.{name}", item, tensors, depth)])
    return {"$dict": pairs}
