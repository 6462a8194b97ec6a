"""Floating-point bytes as another type, rounded to nearest even. numpy is loaded when something is cast."""

from __future__ import annotations

from typing import Any

from dist_toolkit.checkpoint.sound import BITS

NAMES = {"fp32": "F32", "bf16": "BF16", "fp16": "F16"}
"""What a user writes -> the safetensors name."""

_FLOATS = ("F64", "F32", "F16", "BF16")
_NUMPY = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}


class DoesNotFit(ValueError):
    """A finite number is too large for the new type."""


def cast_type(saved: str, wanted: str | None) -> str:
    """The type that a tensor of type `saved` gets: `wanted`, if it holds floats of the usual types."""
    return wanted if wanted is not None and saved in _FLOATS else saved


def item_size(dtype: str) -> int:
    """Bytes of an element."""
    return BITS[dtype] // 8


def cast(data: bytes | memoryview, saved: str, wanted: str) -> bytes:
    """The same numbers as `wanted`; of F64, BF16 is rounded by way of F32, as torch does.

    Raises:
        DoesNotFit: a finite number would become infinite.
    """
    import numpy

    numbers: Any = _decoded(numpy, data, saved)
    finite = numpy.isfinite(numbers)
    with numpy.errstate(over="ignore"):  # told below
        made: Any = numbers.astype(_NUMPY.get(wanted, "<f4"))
        if wanted == "BF16":
            made = _to_bfloat16(numpy, made)
        back = _decoded(numpy, made.tobytes(), wanted)
    lost = finite & ~numpy.isfinite(back)
    if lost.any():
        raise DoesNotFit(f"{numbers[lost][0]:g} does not fit into {wanted}")
    return bytes(made.tobytes())


def _decoded(numpy: Any, data: Any, dtype: str) -> Any:
    if dtype != "BF16":
        return numpy.frombuffer(data, _NUMPY[dtype])
    return (numpy.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4")


def _to_bfloat16(numpy: Any, numbers: Any) -> Any:
    """The upper halves of float32, rounded to nearest even; a nan stays one."""
    bits = numbers.view("<u4")
    odd = (bits >> 16) & 1
    rounded = ((bits.astype("<u8") + 0x7FFF + odd) >> 16).astype("<u2")
    return numpy.where(numpy.isnan(numbers), ((bits >> 16) | 0x40).astype("<u2"), rounded)
