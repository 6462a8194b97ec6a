"""Which device a rank computes on, and which torch.distributed backend fits it."""

from __future__ import annotations

import torch

from dist_toolkit.errors import ConfigError
from dist_toolkit.world import World

BACKENDS = ("auto", "gloo", "nccl", "cpu:gloo,cuda:nccl")


def choose_device(world: World, wanted: str = "auto") -> torch.device:
    """The device of this rank: `cuda:<local rank>`, or `cpu` where there is no GPU or `wanted` is `cpu`.

    A process that sees exactly one GPU takes it whatever its local rank: the scheduler has bound it.

    Raises:
        ConfigError: `wanted` is unknown, or CUDA is wanted (or used) and there are too few GPUs.
    """
    if wanted not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"device={wanted!r} is not a device; known: auto, cpu, cuda")
    gpus = 0 if wanted == "cpu" else torch.cuda.device_count()
    if gpus == 0:
        if wanted == "cuda":
            raise ConfigError(
                "device='cuda' but torch sees no GPU; pass device='cpu' or 'auto', or check CUDA_VISIBLE_DEVICES"
            )
        return torch.device("cpu")
    index = 0 if gpus == 1 else world.local_rank
    if index >= gpus:
        raise ConfigError(
            f"local rank {world.local_rank} has no GPU: {world.local_world_size} ranks on this node, "
            f"{gpus} GPUs visible; start at most {gpus} ranks a node, or pass device='cpu'"
        )
    return torch.device("cuda", index)


def choose_backend(device: torch.device, wanted: str = "auto") -> str:
    """The torch.distributed backend for `device`: gloo on CPU, `cpu:gloo,cuda:nccl` on CUDA.

    Raises:
        ConfigError: `wanted` is unknown, or is nccl on a CPU.
    """
    if wanted not in BACKENDS:
        raise ConfigError(f"backend={wanted!r} is not known; known: {', '.join(BACKENDS)}")
    if "nccl" in wanted and device.type == "cpu":
        raise ConfigError(f"backend={wanted!r} needs a GPU but the device is cpu; pass backend='auto' or 'gloo'")
    if wanted != "auto":
        return wanted
    return "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
