"""The work that every loop does: the model, the optimizer, the batches. Runs in the ranks."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

Batch = tuple[torch.Tensor, torch.Tensor]

_FEATURES, _CLASSES = 256, 10
_BATCHES = 4  # different global batches in memory, used in turn
_EPOCH = 400  # global batches in the loader's data set: few blocks hold the start of an epoch


@dataclass(frozen=True)
class Job:
    """What a loop is made of. The same on every rank but for `rank`."""

    device: torch.device
    rank: int
    world_size: int
    batch: int
    """Samples of a step on each rank."""
    width: int
    seed: int

    @property
    def global_batch(self) -> int:
        """Samples of a step over all ranks."""
        return self.batch * self.world_size

    def model(self) -> nn.Module:
        """A new model on the CPU, always with the same weights."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            width = self.width
            return nn.Sequential(
                nn.Linear(_FEATURES, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(),
                nn.Linear(width, width), nn.ReLU(), nn.Linear(width, _CLASSES),
            )  # fmt: skip

    def optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """SGD with momentum."""
        return torch.optim.SGD(parameters, lr=1e-3, momentum=0.9)

    def in_memory(self) -> Iterator[Batch]:
        """This rank's share of each global batch, on its device, over and over."""
        inputs, targets = self._samples(_BATCHES)
        mine = slice(self.rank * self.batch, (self.rank + 1) * self.batch)
        place = partial(torch.Tensor.to, device=self.device)
        shape = (_BATCHES, self.global_batch)
        pairs = zip(inputs.view(*shape, -1), targets.view(*shape), strict=True)
        return itertools.cycle([(place(x[mine]).contiguous(), place(y[mine]).contiguous()) for x, y in pairs])

    def dataset(self) -> TensorDataset:
        """The samples of one epoch; in their order, the global batches are the same for every loader."""
        return TensorDataset(*self._samples(_EPOCH))

    def plain_loader(self, **options: Any) -> DataLoader[Any]:
        """torch's loader as a script has it before a library changes it: a rank's batch size, in order."""
        return DataLoader(
            self.dataset(), batch_size=self.batch, pin_memory=self.device.type == "cuda", drop_last=True, **options
        )

    def _samples(self, batches: int) -> Batch:
        generator = torch.Generator().manual_seed(self.seed)
        count = batches * self.global_batch
        inputs = torch.randn(count, _FEATURES, generator=generator)
        return inputs, torch.randint(_CLASSES, (count,), generator=generator)


def endless(loader: Iterable[Any]) -> Iterator[Any]:
    """One epoch after the other."""
    while True:
        yield from loader
