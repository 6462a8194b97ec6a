"""torch.save and torch.load."""

from __future__ import annotations

from pathlib import Path

import torch

from ..place import sync
from ..state import Tensors
from . import Method


class TorchSave(Method):
    """Each rank its share, made durable."""

    def save(self) -> None:
        """torch.save, and fsync of the file and the directory."""
        torch.save(self.state.shares, self._path)
        sync(self._path)
        sync(self.folder)

    def load(self) -> Tensors:
        """torch.load."""
        loaded: Tensors = torch.load(self._path)
        return loaded

    @property
    def _path(self) -> Path:
        return self.folder / f"rank-{self.rank}.pt"
