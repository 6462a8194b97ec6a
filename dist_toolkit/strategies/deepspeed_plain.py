"""DeepSpeed's stage 0: whole weights, gradients and optimizer state on every rank."""

from __future__ import annotations

import torch
from torch import nn

from dist_toolkit.errors import ConfigError
from dist_toolkit.strategies.deepspeed_config import Settings
from dist_toolkit.strategies.deepspeed_start import Started, start
from dist_toolkit.strategies.engine import Engine
from dist_toolkit.strategies.precision import LossScaler
from dist_toolkit.strategies.request import SetupRequest
from dist_toolkit.strategies.zero_gradients import GradientWitness, finish_gradients


class DeepSpeedEngine(Engine):
    """What the engines of all stages have in common."""

    strategy = "deepspeed"
    _started: Started

    def __init__(self, module: nn.Module, request: SetupRequest, settings: Settings) -> None:
        self._settings, self._stage = settings, settings.stage
        self._finished = self._has_gradients = False
        self._witness = GradientWitness(module)
        super().__init__(module, request)
        if self.scheduler is None:
            self.scheduler = self._started.engine.lr_scheduler

    def zero_grad(self) -> None:
        """Forget the gradients."""
        self._finished = self._has_gradients = False
        super().zero_grad()

    def clip_grad_norm(self, max_norm: float) -> torch.Tensor:
        """Scale the gradients so that their global 2-norm is at most `max_norm`; call it between backward and step.

        Collective. Returns the norm before.

        Raises:
            ConfigError: the ds_config clips too.
        """
        if self._settings.clip:
            raise ConfigError(
                f"ds_config: gradient_clipping is {self._settings.clip}, so engine.step() clips; "
                f"drop it, or the script's clip_grad_norm({max_norm})"
            )
        return self._clip(max_norm)

    def _clip(self, max_norm: float) -> torch.Tensor:
        return super().clip_grad_norm(max_norm)

    def _make_optimizer(self, request: SetupRequest) -> torch.optim.Optimizer:
        self._started = start(self.module, request, self._settings)
        return self._started.optimizer

    def _backward(self, loss: torch.Tensor) -> None:
        self._finished, self._has_gradients = False, True
        self._started.engine.backward(loss, scale_wrt_gas=False)

    def _finish(self) -> None:
        """Average the gradients over ranks, once a step. Collective."""
        if not self._finished:
            self._finished = True
            finish_gradients(self._started.engine, self._started.zero, self._stage)

    def _unscale(self) -> None:
        self._finish()
        super()._unscale()

    def _update(self) -> bool:
        self._finish()
        if self._settings.clip:
            self._clip(self._settings.clip)
        return super()._update()

    def _check_unused(self) -> None:
        super()._check_unused()
        self._witness.close()

    def _without_gradient(self) -> list[str]:
        return self._witness.missing()

    def _sync_buffers(self) -> None:
        for buffer in self.module.buffers():
            self.group.broadcast(buffer)


class PlainEngine(DeepSpeedEngine):
    """Stage 0: our own optimizer, and DeepSpeed's averaging of gradients."""

    def _finish(self) -> None:
        # where no backward was, there is nothing to average, unless a script has set gradients itself
        if self._has_gradients or any(parameter.grad is not None for parameter in self.module.parameters()):
            super()._finish()

    def _make_scaler(self) -> LossScaler | None:
        if self.precision != "fp16":
            return None
        settings = self._settings
        return LossScaler(self.group, agree=False, initial=settings.scale, interval=settings.scale_interval)
