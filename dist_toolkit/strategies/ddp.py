"""torch's DistributedDataParallel: a whole replica a rank, gradients averaged while backward runs."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from dist_toolkit.errors import ConfigError
from dist_toolkit.process_group import Group
from dist_toolkit.strategies.base import Engine, OptimizerFactory, Strategy, make_optimizer
from dist_toolkit.world import World


@dataclass(frozen=True)
class DDP(Strategy):
    """Options of torch's DistributedDataParallel; see its documentation."""

    name = "ddp"

    bucket_cap_mb: float = 25.0
    static_graph: bool = False
    find_unused_parameters: bool = False

    def check(self, world: World) -> None:
        """Needs a launcher, even for one rank."""
        if not world.launched and not dist.is_initialized():
            raise ConfigError("strategy 'ddp' needs a process group; start with `dtk launch`, or use strategy 'auto'")

    def setup(self, module: nn.Module, optimizer: OptimizerFactory | torch.optim.Optimizer, group: Group) -> Engine:
        """Move the model to the device, give every rank rank 0's weights, and make the optimizer. Collective."""
        module = module.to(group.device)
        made = make_optimizer(optimizer, module)
        wrapped = DistributedDataParallel(
            module,
            device_ids=[group.device.index] if group.device.type == "cuda" else None,
            bucket_cap_mb=self.bucket_cap_mb,
            static_graph=self.static_graph,
            find_unused_parameters=self.find_unused_parameters,
            gradient_as_bucket_view=True,
        )
        return DDPEngine(wrapped, made, group)


class DDPEngine(Engine):
    """An Engine over a DistributedDataParallel module."""

    strategy = "ddp"

    def __init__(self, wrapped: DistributedDataParallel, optimizer: torch.optim.Optimizer, group: Group) -> None:
        super().__init__(wrapped.module, optimizer, group)
        self._wrapped = self._ddp = wrapped

    def _no_sync(self) -> AbstractContextManager[Any]:
        return self._ddp.no_sync()

    def _sync_buffers(self) -> None:
        # DDP does the same before the next forward pass: training does not notice, a checkpoint would.
        for buffer in self.module.buffers():
            self.group.broadcast(buffer)
