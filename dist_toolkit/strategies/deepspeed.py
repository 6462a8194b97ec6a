"""DeepSpeed: ZeRO splits optimizer state (stage 1), gradients (2) and weights (3) over the ranks."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from dist_toolkit.errors import ConfigError
from dist_toolkit.strategies.deepspeed_config import Settings, Wanted, merge
from dist_toolkit.strategies.deepspeed_load import check_zero_keys, load_deepspeed, read_config
from dist_toolkit.strategies.deepspeed_plain import PlainEngine
from dist_toolkit.strategies.engine import Engine
from dist_toolkit.strategies.optimizers import refuse_sparse_gradients
from dist_toolkit.strategies.request import SetupRequest, build_together
from dist_toolkit.strategies.same_model import check_same, describe, together
from dist_toolkit.strategies.strategy import Strategy
from dist_toolkit.strategies.zero_engine import ZeroEngine
from dist_toolkit.world import World

_LOG = logging.getLogger("dist_toolkit")


@dataclass(frozen=True)
class DeepSpeed(Strategy):
    """Train with DeepSpeed; needs the package deepspeed (`pip install 'dist-toolkit[deepspeed]'`).

    Gradients, norms, checkpoints and the loop are as in every other strategy: gradients are averages over ranks, this
    package does the accumulation, and `rt.checkpointer` saves. Weights and optimizer state are fp32; `precision` is
    what the model computes in. A step whose gradients are not finite is skipped in every precision.

    Attributes:
        stage: what is split over the ranks: 0 nothing, 1 optimizer state, 2 gradients too, 3 weights too. None: what
            `config` says, or 2.
        offload: `cpu` keeps optimizer state, and at stage 3 weights, in CPU memory; None: what `config` says, or not.
        config: an existing ds_config: a path or a dict. What it says and the script says too, and otherwise, is an
            error; its "auto" values are filled in. Its `optimizer` and `scheduler` are used where rt.setup gets none.
    """

    name = "deepspeed"
    compared_later = frozenset({"config"})

    stage: int | None = None
    offload: str | None = None
    config: str | os.PathLike[str] | Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.stage not in (None, 0, 1, 2, 3) or isinstance(self.stage, (bool, float)):
            raise ConfigError(f"DeepSpeed(stage={self.stage!r}) is unknown; ZeRO has stages 0, 1, 2 and 3")
        if self.offload not in (None, "none", "cpu"):
            raise ConfigError(f"DeepSpeed(offload={self.offload!r}) is unknown; known: none, cpu")
        if not isinstance(self.config, (str, os.PathLike, Mapping, type(None))):
            raise ConfigError(f"DeepSpeed(config={self.config!r}) is not the path of a ds_config, nor a dict")

    def check(self, world: World) -> None:
        """Needs a launcher, even for one rank."""
        if not world.launched and not dist.is_initialized():
            raise ConfigError(
                "strategy 'deepspeed' needs a process group; start with `dtk launch`, or use strategy 'auto'"
            )

    def setup(self, request: SetupRequest) -> Engine:
        """Build the model on every rank, give every rank rank 0's weights, and split them. Collective."""
        group = request.group
        # the package before the model: a missing one is told at once
        given = together("reading the ds_config", self._read(group.device), group)
        module = build_together(request.model, group).to(group.device)
        settings = together("merging the ds_config", lambda: self._settle(given, request, module), group)
        check_same("the model", describe(module), group)
        check_same("the merged ds_config", _as_text(settings), group)
        for line in settings.ignored if group.world.is_main else ():
            _LOG.warning("ds_config: no effect of %s", line)
        return (ZeroEngine if settings.stage else PlainEngine)(module, request, settings)

    def _read(self, device: torch.device) -> Callable[[], dict[str, Any]]:
        def read() -> dict[str, Any]:
            given = read_config(self.config)
            load_deepspeed(device)
            return given

        return read

    def _settle(self, given: Mapping[str, Any], request: SetupRequest, module: nn.Module) -> Settings:
        settings = merge(given, self._wanted(request, module))
        check_zero_keys(given)
        if settings.stage:
            refuse_sparse_gradients(module, f"DeepSpeed stage {settings.stage}")
        return settings

    def _wanted(self, request: SetupRequest, module: nn.Module) -> Wanted:
        sizes = [parameter.numel() for parameter in module.parameters() if parameter.requires_grad]
        return Wanted(
            ranks=request.group.world.world_size,
            stage=self.stage,
            offload=self.offload,
            precision=request.precision,
            optimizer=request.optimizer is not None,
            scheduler=request.scheduler is not None,
            device=request.group.device.type,
            numel=sum(sizes),
            largest=max(sizes),
        )


def _as_text(settings: Settings) -> dict[str, str]:
    config = settings.config | {"gradient_clipping": settings.clip, "loss scale": settings.scale}
    return {key: json.dumps(value, sort_keys=True, default=str) for key, value in sorted(config.items())}
