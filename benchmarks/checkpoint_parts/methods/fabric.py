"""Lightning Fabric's save and load, of a state that every rank holds."""

from __future__ import annotations

from lightning.fabric import Fabric

from ..place import sync
from ..state import Tensors
from . import Job, Method


class FabricFiles(Method):
    """fabric.save with the strategy ddp."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self._fabric = Fabric(accelerator="cpu", devices=job.ranks, strategy="ddp")
        self._fabric.launch()
        self._path = self.folder / "state.ckpt"

    def save(self) -> None:
        """Rank 0 writes; fsync of the file and the directory."""
        self._fabric.save(self._path, {"model": self.state.whole})
        if self.rank == 0:
            sync(self._path)
            sync(self.folder)

    def load(self) -> Tensors:
        """Every rank the whole."""
        loaded: Tensors = self._fabric.load(self._path)["model"]
        return loaded
