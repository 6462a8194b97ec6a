"""The loop with Accelerate, as its documentation writes it."""

from __future__ import annotations

from contextlib import ExitStack
from itertools import islice
from typing import Any

import torch.nn.functional as F
from accelerate import Accelerator
from torch import nn

from ..work import Job, endless


class Accelerated:
    """prepare; accelerator.backward."""

    def __init__(self, job: Job, feed: str, cleanup: ExitStack) -> None:
        self._accelerator = accelerator = Accelerator(cpu=job.device.type == "cpu")
        self._bare = model = job.model()
        optimizer = job.optimizer(model.parameters())
        self._batches: Any = job.in_memory()
        if feed == "memory":
            self._model, self._optimizer = accelerator.prepare(model, optimizer)
        else:
            self._model, self._optimizer, loader = accelerator.prepare(model, optimizer, job.plain_loader())
            self._batches = endless(loader)

    def run(self, steps: int) -> None:
        """Train."""
        accelerator, model, optimizer = self._accelerator, self._model, self._optimizer
        for inputs, targets in islice(self._batches, steps):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(inputs), targets)
            accelerator.backward(loss)
            optimizer.step()

    def trained(self) -> nn.Module:
        """The model, without wrappers."""
        return self._bare
