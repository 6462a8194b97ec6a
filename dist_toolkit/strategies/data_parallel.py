"""torch's DataParallel: one process that drives many GPUs by threads. Here for comparison."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch
from torch import nn

from dist_toolkit.errors import ConfigError
from dist_toolkit.strategies.engine import Engine
from dist_toolkit.strategies.request import SetupRequest
from dist_toolkit.strategies.strategy import Strategy
from dist_toolkit.world import World

_LOG = logging.getLogger("dist_toolkit")


@dataclass(frozen=True)
class DataParallel(Strategy):
    """torch.nn.DataParallel over all GPUs of this process, or over `device_ids`."""

    name = "data_parallel"

    device_ids: tuple[int, ...] | None = None

    def check(self, world: World) -> None:
        """One rank only: it is one process that uses all the devices."""
        if world.world_size > 1:
            raise ConfigError(
                f"strategy 'data_parallel' is one process with many GPUs, but there are {world.world_size} ranks; "
                "use ddp, or --nproc 1"
            )

    def setup(self, request: SetupRequest) -> Engine:
        """Move the model to the first device and wrap it; warns of what it costs."""
        device = request.group.device
        ids = self._devices(device)
        module = request.model.build().to(device)
        if len(ids) > 1:
            _LOG.warning(
                "DataParallel copies the model to %d GPUs at every step, in threads of one process; DDP does not. "
                "`dtk bench throughput --strategies dp,ddp` measures both on this machine",
                len(ids),
            )
        else:
            _LOG.warning(
                "strategy 'data_parallel' has %s here: it is one process on one device, the same as 'single'. "
                "`dtk bench throughput --strategies dp,ddp` compares it with DDP",
                "one GPU" if device.type == "cuda" else "no GPU",
            )
        wrapped = nn.DataParallel(module, device_ids=list(ids)) if len(ids) > 1 else module
        return DataParallelEngine(module, request, wrapped)

    def _devices(self, device: torch.device) -> tuple[int, ...]:
        """The GPUs to use, the one that holds the model first; none on the CPU."""
        if device.type != "cuda":
            if self.device_ids:
                raise ConfigError(f"DataParallel(device_ids={list(self.device_ids)}), but the device is the CPU")
            return ()
        found = torch.cuda.device_count()
        ids = tuple(range(found)) if self.device_ids is None else self.device_ids
        first = device.index or 0
        if not ids or any(not 0 <= i < found for i in ids) or first not in ids:
            raise ConfigError(
                f"DataParallel(device_ids={list(ids)}): name GPUs from 0 to {found - 1}, with {first}, "
                "which holds the model, among them"
            )
        return (first, *(i for i in ids if i != first))


class DataParallelEngine(Engine):
    """An Engine over a DataParallel module; gradients are summed onto the first device by torch."""

    strategy = "data_parallel"
