"""The loop with Lightning Fabric, as its documentation writes it."""

from __future__ import annotations

from contextlib import ExitStack
from itertools import islice
from typing import Any

import torch.nn.functional as F
from lightning.fabric import Fabric
from torch import nn

from ..work import Job, endless


class FabricLoop:
    """launch, setup, setup_dataloaders; fabric.backward."""

    def __init__(self, job: Job, feed: str, cleanup: ExitStack) -> None:
        self._fabric = fabric = Fabric(accelerator=job.device.type, devices=job.world_size, strategy="ddp")
        fabric.launch()
        model = job.model()
        self._model, self._optimizer = fabric.setup(model, job.optimizer(model.parameters()))
        self._bare = model
        self._batches: Any = job.in_memory()
        if feed == "loader":
            self._batches = endless(fabric.setup_dataloaders(job.plain_loader()))

    def run(self, steps: int) -> None:
        """Train."""
        fabric, model, optimizer = self._fabric, self._model, self._optimizer
        for inputs, targets in islice(self._batches, steps):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(inputs), targets)
            fabric.backward(loss)
            optimizer.step()

    def trained(self) -> nn.Module:
        """The model, without wrappers."""
        return self._bare
