"""What DDP sends in place of whole fp32 gradients: torch's own communication hooks."""

from __future__ import annotations

import logging
from typing import Any

from torch.distributed.algorithms.ddp_comm_hooks import default_hooks, powerSGD_hook
from torch.nn.parallel import DistributedDataParallel

from dist_toolkit.process_group import Group

COMM_HOOKS = ("bf16", "fp16", "powersgd")

_LOG = logging.getLogger("dist_toolkit")


def install_hook(model: DistributedDataParallel, name: str, rank: int, start: int, group: Group) -> None:
    """Make `model` reduce its gradients by hook `name`, one of COMM_HOOKS; `rank` and `start` are PowerSGD's."""
    if name == "powersgd":
        state = powerSGD_hook.PowerSGDState(None, matrix_approximation_rank=rank, start_powerSGD_iter=start)
        _register(model, state, powerSGD_hook.powerSGD_hook)
        if group.world.is_main:
            _LOG.warning("PowerSGD keeps an error feedback that is not in checkpoints: a resume is not bit-identical")
    else:
        hook = {"bf16": default_hooks.bf16_compress_hook, "fp16": default_hooks.fp16_compress_hook}[name]
        _register(model, None, hook)


def _register(model: DistributedDataParallel, state: Any, hook: Any) -> None:
    model.register_comm_hook(state, hook)
