"""Tensors as bytes (type names of the safetensors format, views of memory without a copy), and tensors in nests."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch

DTYPE_NAMES: dict[torch.dtype, str] = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
    torch.complex64: "C64",
}
DTYPES = {name: dtype for dtype, name in DTYPE_NAMES.items()}


class TensorMeta(NamedTuple):
    """Shape and type of a saved tensor."""

    shape: tuple[int, ...]
    dtype: torch.dtype


def byte_view(tensor: torch.Tensor) -> memoryview:
    """The memory of a contiguous CPU tensor, writable, without a copy; length = bytes of the tensor."""
    array: Any = tensor.detach().reshape(-1).view(torch.uint8).numpy()
    return memoryview(array)


def map_tensors(value: Any, function: Callable[[torch.Tensor], Any]) -> Any:
    """`value` with `function` applied to every tensor in it (in lists, tuples, named tuples, mappings of any class)."""
    if isinstance(value, torch.Tensor):
        return function(value)
    if isinstance(value, Mapping):
        items = {key: map_tensors(item, function) for key, item in value.items()}
        return items if type(value) is dict else type(value)(items)  # type: ignore[call-arg]
    if isinstance(value, tuple):
        parts = [map_tensors(item, function) for item in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    if isinstance(value, list):
        return [map_tensors(item, function) for item in value]
    return value


def misfit(saved: Mapping[str, TensorMeta], mine: Mapping[str, TensorMeta], what: str) -> str:
    """How saved tensors differ from those of this `what` by names, shapes and types, the first ones; '' if not."""
    missing, foreign = sorted(set(mine) - set(saved)), sorted(set(saved) - set(mine))
    if missing or foreign:
        words = [f"{verb} {_some(names)}" for verb, names in (("lacks", missing), ("has besides", foreign)) if names]
        return f"the checkpoint is not of this {what}: it {' and '.join(words)}"
    for key, (shape, dtype) in mine.items():
        if (shape, dtype) != saved[key]:
            return (
                f"{key} is {dtype} of shape {list(shape)} here, "
                f"but {saved[key].dtype} of shape {list(saved[key].shape)} in the checkpoint"
            )
    return ""


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
