"""torch.distributed.checkpoint, at once and in the background."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp

from ..place import sync
from ..state import Tensors
from . import Job, Method


class Dcp(Method):
    """save and load, with the defaults of FileSystemWriter."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self._sharded = job.state.sharded
        self._target: dict[str, torch.Tensor] = {}

    def save(self) -> None:
        """dcp.save, and fsync of the directory."""
        dcp.save(self._sharded, storage_writer=dcp.FileSystemWriter(self.folder))
        sync(self.folder)

    def before_load(self) -> None:
        """The tensors to load into, which a model has already; their memory is not touched."""
        self._target = {n: self.state.as_sharded(torch.empty_like(t)) for n, t in self.state.shares.items()}

    def load(self) -> Tensors:
        """Load in place."""
        target, self._target = self._target, {}
        dcp.load(target, storage_reader=dcp.FileSystemReader(self.folder))
        return {name: tensor.to_local() for name, tensor in target.items()}


class DcpAsync(Dcp):
    """async_save."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self._group = dist.new_group(backend="gloo")
        self._saving: Future[Any] | None = None

    def save(self) -> None:
        """Until async_save returns."""
        writer = dcp.FileSystemWriter(self.folder)
        found = dcp.async_save(self._sharded, storage_writer=writer, process_group=self._group)
        assert isinstance(found, Future)
        self._saving = found

    def wait(self) -> None:
        """Until it is saved; then fsync of the directory."""
        assert self._saving is not None
        self._saving.result()
        self._saving = None
        sync(self.folder)
