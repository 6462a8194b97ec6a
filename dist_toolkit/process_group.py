"""The process-group manager: joining the other ranks, on every kind of machine.

`open_group` gives a `Group`; in a process that no launcher started it is a `SoloGroup`.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from datetime import timedelta

import torch
import torch.distributed as dist

from dist_toolkit.devices import choose_backend
from dist_toolkit.errors import ConfigError
from dist_toolkit.group import Group as Group
from dist_toolkit.group import Pending as Pending
from dist_toolkit.group import Reduction as Reduction
from dist_toolkit.group import SoloGroup as SoloGroup
from dist_toolkit.torch_group import TorchGroup as TorchGroup
from dist_toolkit.world import World


def open_group(
    world: World,
    device: torch.device,
    backend: str = "auto",
    timeout: float = 1800.0,
    env: Mapping[str, str] | None = None,
    desync_guard: bool = True,
) -> Group:
    """Join the other ranks. Collective.

    An already initialised default group is used and left alone at the end.

    Args:
        backend: one of `devices.BACKENDS`.
        timeout: seconds after which a collective that not all ranks entered fails.
        env: where DTK_INIT_METHOD is looked up (default: the process's); without it torch's `env://`.
        desync_guard: whether calls that the ranks do not all make are named within seconds (docs/decisions/0009).

    Raises:
        ConfigError: the backend does not fit the device, no rendezvous is set, or two ranks would use one GPU.
    """
    backend = choose_backend(device, backend)
    if timeout <= 0:
        raise ConfigError(f"timeout={timeout} is not a positive number of seconds")
    if not world.launched and not dist.is_initialized():
        return SoloGroup(world, device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    variables = os.environ if env is None else env
    if not dist.is_initialized() and "DTK_INIT_METHOD" not in variables and "MASTER_ADDR" not in variables:
        raise ConfigError(
            "RANK and WORLD_SIZE are set but MASTER_ADDR is not: left over in this shell? unset them, "
            "or start with `dtk launch` or torchrun"
        )
    group = TorchGroup.join(
        world, device, backend, timedelta(seconds=timeout), variables.get("DTK_INIT_METHOD"), desync_guard
    )
    if device.type == "cuda":
        _refuse_shared_gpus(group, device)
    return group


def _refuse_shared_gpus(group: Group, device: torch.device) -> None:
    uuid = str(getattr(torch.cuda.get_device_properties(device), "uuid", device.index))
    places = group.all_gather_json([socket.gethostname(), uuid])
    owners: dict[tuple[str, str], int] = {}
    for rank, (host, gpu) in enumerate(places):
        first = owners.setdefault((host, gpu), rank)
        if first != rank:
            raise ConfigError(f"ranks {first} and {rank} both use GPU {gpu} of {host}; give each rank a GPU of its own")
