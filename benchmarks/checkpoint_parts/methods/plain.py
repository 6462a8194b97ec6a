"""The bytes alone: what the disk and the system can do."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

import torch

from ..place import sync
from ..state import Tensors
from . import Method

_VECTOR = 1024  # buffers of one call: IOV_MAX of Linux
_AT_ONCE = 1 << 30  # bytes of one call, below Linux's limit of 2 GiB


class Plain(Method):
    """One file a rank: the tensors one after the other, in as few system calls as there can be."""

    def save(self) -> None:
        """writev, fsync of the file and the directory."""
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            for group, size in _groups(self.state.shares.values()):
                if os.writev(descriptor, group) != size:
                    raise OSError(f"{self._path}: a write was cut short")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        sync(self.folder)

    def load(self) -> Tensors:
        """Preadv into new tensors."""
        loaded = {name: torch.empty_like(tensor) for name, tensor in self.state.shares.items()}
        descriptor, offset = os.open(self._path, os.O_RDONLY), 0
        try:
            for group, size in _groups(loaded.values()):
                if os.preadv(descriptor, group, offset) != size:
                    raise OSError(f"{self._path}: a read was cut short")
                offset += size
        finally:
            os.close(descriptor)
        return loaded

    @property
    def _path(self) -> str:
        return str(self.folder / f"rank-{self.rank}.bin")


def _groups(tensors: Iterable[torch.Tensor]) -> Iterator[tuple[list[memoryview], int]]:
    """The memory of the tensors, as much as fits one call at a time."""
    group: list[memoryview] = []
    size = 0
    for tensor in tensors:
        for start in range(0, tensor.nbytes, _AT_ONCE):
            view = memoryview(tensor.numpy()).cast("B")[start : start + _AT_ONCE]
            if group and (len(group) == _VECTOR or size + len(view) > _AT_ONCE):
                yield group, size
                group, size = [], 0
            group.append(view)
            size += len(view)
    if group:
        yield group, size
