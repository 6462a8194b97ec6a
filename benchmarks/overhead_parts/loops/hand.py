"""The loop that one writes with torch alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from itertools import islice
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler

import dist_toolkit as dtk

from ..work import Batch, Job


class Hand:
    """DistributedDataParallel, its defaults, and a DistributedSampler."""

    def __init__(self, job: Job, feed: str, cleanup: ExitStack) -> None:
        device_ids = [job.device.index] if job.device.type == "cuda" else None
        self._model = DistributedDataParallel(
            job.model().to(job.device), device_ids=device_ids, **self._options(job.device)
        )
        self._optimizer = job.optimizer(self._model.parameters())
        self._batches = job.in_memory() if feed == "memory" else self._load(job)

    def run(self, steps: int) -> None:
        """Train."""
        model, optimizer = self._model, self._optimizer
        for inputs, targets in islice(self._batches, steps):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(inputs), targets)
            loss.backward()
            optimizer.step()

    def trained(self) -> nn.Module:
        """The model, without wrappers."""
        module: nn.Module = self._model.module
        return module

    def _options(self, device: torch.device) -> dict[str, Any]:
        return {}

    def _load(self, job: Job) -> Iterator[Batch]:
        data = job.dataset()
        sampler = DistributedSampler(data, job.world_size, job.rank, shuffle=False, drop_last=True)
        pinned = job.device.type == "cuda"
        loader: DataLoader[Any] = DataLoader(data, batch_size=job.batch, sampler=sampler, pin_memory=pinned)
        epoch = 0
        while True:
            sampler.set_epoch(epoch)
            for inputs, targets in loader:
                yield inputs.to(job.device, non_blocking=True), targets.to(job.device, non_blocking=True)
            epoch += 1


class HandView(Hand):
    """The same with one option, so that it can be said which of them changes the time."""

    def _options(self, device: torch.device) -> dict[str, Any]:
        return {"gradient_as_bucket_view": True}


class HandOptions(Hand):
    """The same with the DDP options that dist_toolkit sets, so that the rest of the difference is the wrapper."""

    def _options(self, device: torch.device) -> dict[str, Any]:
        return dtk.DDP().torch_options(device)
