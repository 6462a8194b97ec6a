"""The model and the optimizer that a Trainer has made, as the engine that a checkpointer asks for."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule

from dist_toolkit.group import Group
from dist_toolkit.strategies.engine_state import EngineState
from dist_toolkit.strategies.mark import StrategyMark

_PRECISIONS = {"no": "fp32"}


class TrainerEngine(EngineState):
    """The state of what Accelerate has wrapped: plain, in DistributedDataParallel, or split by fully_shard."""

    def __init__(self, trainer: Any, group: Group, alone: bool = False) -> None:
        self._trainer, self.group, self._alone = trainer, group, alone
        self.module: nn.Module = trainer.accelerator.unwrap_model(trainer.model_wrapped, keep_torch_compile=False)
        self.optimizer: torch.optim.Optimizer = inner_optimizer(trainer)

    @property
    def steps_taken(self) -> int:
        """Optimizer steps of the run."""
        return int(self._trainer.state.global_step)

    def extra_parts(self) -> dict[str, Any]:
        """The schedule, fp16's loss scale, and which strategy it was."""
        trainer = self._trainer
        if self._alone:
            return {}
        precision = str(trainer.accelerator.mixed_precision)
        mark = StrategyMark(strategy_name(trainer), _PRECISIONS.get(precision, precision))
        parts = {"schedule": trainer.lr_scheduler, "scaler": trainer.accelerator.scaler, "strategy": mark}
        return {name: part for name, part in parts.items() if part is not None}

    def _sync_buffers(self) -> None:
        # DistributedDataParallel does the same before the next forward pass; fully_shard never does
        if self.group.world.world_size > 1:
            for buffer in self.module.buffers():
                self.group.broadcast(buffer)

    def _model_state(self) -> dict[str, Any]:
        self._reshard()
        return super()._model_state()

    def _names(self) -> dict[torch.Tensor, str]:
        self._reshard()
        return super()._names()

    def _reshard(self) -> None:
        """Have the module hold its parts: after a forward pass, fully_shard leaves the outermost weights whole."""
        for module in self.module.modules():
            if isinstance(module, FSDPModule):
                module.reshard()


def trainer_engine(trainer: Any, group: Group, alone: bool = False) -> Any:
    """The engine of a Trainer whose model has been prepared; `alone`: without what belongs to it beside its state."""
    return TrainerEngine(trainer, group, alone)


def inner_optimizer(trainer: Any) -> Any:
    """The optimizer without Accelerate's wrapper."""
    found = trainer.optimizer
    while hasattr(found, "optimizer") and type(found).__module__.startswith("accelerate."):
        found = found.optimizer
    return found


def strategy_name(trainer: Any) -> str:
    """As this package names it."""
    if trainer.is_deepspeed_enabled:
        return "deepspeed"
    if trainer.is_fsdp_enabled:
        return "fsdp"
    return "ddp" if trainer.args.world_size > 1 else "single"
