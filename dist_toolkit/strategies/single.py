"""One process, one device: the plain loop, with the Engine's shape."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from dist_toolkit.errors import ConfigError
from dist_toolkit.process_group import Group
from dist_toolkit.strategies.base import Engine, OptimizerFactory, Strategy, make_optimizer
from dist_toolkit.world import World


@dataclass(frozen=True)
class Single(Strategy):
    """Train on one device."""

    name = "single"

    def check(self, world: World) -> None:
        """One rank only: several would train copies that know nothing of each other."""
        if world.world_size > 1:
            raise ConfigError(
                f"strategy 'single' on {world.world_size} ranks would train as many unrelated models; "
                "use ddp, or --nproc 1"
            )

    def setup(self, module: nn.Module, optimizer: OptimizerFactory | torch.optim.Optimizer, group: Group) -> Engine:
        """Move the model to the device and make its optimizer."""
        module = module.to(group.device)
        return Engine(module, make_optimizer(optimizer, module), group)
