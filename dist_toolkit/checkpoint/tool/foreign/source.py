"""Tensors of another program's checkpoint that are read when they are written, and the checkpoint made of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from dist_toolkit.checkpoint.tool.outcome import UsageError
from dist_toolkit.tensors import DTYPE_NAMES


@dataclass(frozen=True)
class Piece:
    """A box of a tensor, and what reads it."""

    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    load: Callable[[], torch.Tensor]


@dataclass(frozen=True)
class LazyTensor:
    """A tensor in one or several pieces. `identity` is equal for those that share their memory; None: not known."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    pieces: tuple[Piece, ...]
    identity: object = None

    @property
    def size(self) -> int:
        """Its bytes."""
        return math.prod(self.shape) * self.dtype.itemsize

    def load(self) -> torch.Tensor:
        """The whole of it."""
        if len(self.pieces) == 1:
            return self.pieces[0].load()
        whole = torch.empty(self.shape, dtype=self.dtype)
        for piece in self.pieces:
            box = tuple(slice(begin, begin + size) for begin, size in zip(piece.offsets, piece.sizes, strict=True))
            whole[box] = piece.load()
        return whole


@dataclass(frozen=True)
class Deferred:
    """A plain value that is read when it is asked for."""

    load: Callable[[], Any]


@dataclass(frozen=True)
class Converted:
    """A checkpoint of format 1 before it is written: tensors and values by their names in it, and what to tell."""

    step: int
    tensors: Mapping[str, LazyTensor]
    values: Mapping[str, Any]
    notes: Sequence[str]
    has_optimizer: bool


def lazy(dtype: torch.dtype, shape: Sequence[int], load: Callable[[], torch.Tensor]) -> LazyTensor:
    """A tensor that is read as a whole."""
    sizes = tuple(shape)
    return LazyTensor(dtype, sizes, (Piece((0,) * len(sizes), sizes, load),))


def wrap(tensor: torch.Tensor, name: str) -> LazyTensor:
    """A tensor that is there, or is mapped into memory.

    Raises:
        UsageError: it is sparse, quantised, of a subclass, or of a type that safetensors lacks.
    """
    if type(tensor) not in (torch.Tensor, torch.nn.Parameter) or tensor.layout is not torch.strided:
        raise UsageError(f"{name} is a {type(tensor).__name__} ({tensor.layout}); only dense tensors are converted")
    check_dtype(tensor.dtype, name)
    plain = tensor.detach()
    identity = (plain.untyped_storage().data_ptr(), plain.storage_offset(), tuple(plain.shape), plain.stride())
    made = lazy(plain.dtype, plain.shape, lambda: plain)
    return LazyTensor(made.dtype, made.shape, made.pieces, identity if plain.numel() else None)


def check_dtype(dtype: torch.dtype, name: str) -> None:
    """Refuse what a checkpoint cannot hold. Raises UsageError."""
    if dtype not in DTYPE_NAMES:
        raise UsageError(f"{name} is of type {dtype}, which a checkpoint cannot hold; convert it before")


def materialise(value: Any) -> Any:
    """A part of a tree with everything in it read."""
    if isinstance(value, Deferred):
        return value.load()
    if isinstance(value, LazyTensor):
        return value.load()
    if isinstance(value, Mapping):
        return {key: materialise(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(materialise(item) for item in value)
    return value
