"""The engine of ZeRO 1, 2 and 3."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any, cast

import torch
from torch import nn

from dist_toolkit.errors import ConfigError
from dist_toolkit.strategies import zero_state
from dist_toolkit.strategies.deepspeed_config import Settings
from dist_toolkit.strategies.deepspeed_plain import DeepSpeedEngine
from dist_toolkit.strategies.ema import EMA
from dist_toolkit.strategies.request import SetupRequest
from dist_toolkit.strategies.sharded import ShardedEngine
from dist_toolkit.strategies.state import check_optimizer, compare_tensors, has_optimizer, strip_wrappers
from dist_toolkit.strategies.zero_averages import ZeroAverages
from dist_toolkit.strategies.zero_fragments import Fragment, fragments_of, gather, read_frozen, refresh, write_frozen
from dist_toolkit.strategies.zero_gradients import begin_backward, forget_gradients, gradient_norm
from dist_toolkit.strategies.zero_scaler import ZeroScaler
from dist_toolkit.strategies.zero_state import Pieces
from dist_toolkit.tensors import TensorMeta


class ZeroEngine(DeepSpeedEngine, ShardedEngine):
    """An Engine over DeepSpeed's ZeRO optimizer. At stage 3 every forward pass is collective."""

    _clipped: float | torch.Tensor = 1.0
    """What DeepSpeed will scale the gradients by when it steps."""

    def __init__(self, module: nn.Module, request: SetupRequest, settings: Settings) -> None:
        self.forward_is_collective = settings.stage == 3
        self._pieces = Pieces(request.group)
        super().__init__(module, request, settings)

    def zero_grad(self) -> None:
        """Forget the gradients, DeepSpeed's partial sums included."""
        self._finished, self._clipped, self._has_gradients = False, 1.0, False
        forget_gradients(self._zero, self._stage)

    def named_weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Pairs (canonical name, whole fp32 weight), one at a time, trainable or not. Collective."""
        for name, parameter in self.module.named_parameters():
            yield strip_wrappers(name), self._whole(strip_wrappers(name), parameter)

    def named_gradients(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Pairs (canonical name, whole gradient over all ranks), zeros where there was none. Collective.

        None before the first `backward` of a step.
        """
        if not self._has_gradients:
            return
        whole: Any = importlib.import_module("deepspeed.utils").safe_get_full_grad
        self._finish()
        scale = self._clipped / self._zero.loss_scale
        for name, fragment in self._fragments.items():
            yield name, whole(fragment.parameter) * scale

    def state_dict(self) -> dict[str, Any]:
        """Weights, buffers and optimizer state under canonical names, the same for every strategy. Collective.

        Tensors are copies, split over the ranks along dimension 0 (DTensor).
        """
        self._sync_buffers()
        known: dict[int, torch.Tensor] = {}
        for name, parameter in self.module.named_parameters():
            known[id(parameter)] = self._pieces.cut(self._whole(strip_wrappers(name), parameter))
        live = self._model_state()
        state: dict[str, Any] = {
            f"model.{name}": known.get(id(value), value) for name, value in live.items() if _is_tensor(value)
        }
        state["model_extra"] = {name: value for name, value in live.items() if not _is_tensor(value)}
        tensors, plain = zero_state.capture_optimizer(self.optimizer, self._fragments, self._pieces, self.group)
        groups = zero_state.plain_groups(self.optimizer, self._started.groups)
        return state | tensors | {"optim_groups": {"groups": groups, "state": plain}}

    def load_template(self, saved: Mapping[str, TensorMeta], values: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        """New tensors, split over the ranks, to read a saved state into. Changes nothing.

        Raises:
            StateMismatch: the saved state is not of this model and optimizer.
        """
        shapes = {
            f"model.{name}": torch.empty(self._shape(value), dtype=value.dtype, device="meta")
            for name, value in self._model_state().items()
            if _is_tensor(value)
        }
        compare_tensors({key: meta for key, meta in saved.items() if key.startswith("model.")}, shapes, "model")
        by_name = dict(self._named())
        groups = SimpleNamespace(param_groups=[{"params": [by_name[n] for n in g]} for g in self._started.groups])
        names: dict[torch.Tensor, str] = {p: name for name, p in by_name.items()}
        check_optimizer(cast(torch.optim.Optimizer, groups), names, values, self.group.world.is_main)
        template = {key: self._pieces.empty(tensor.shape, tensor.dtype) for key, tensor in shapes.items()}
        return template | zero_state.optimizer_template(saved, self._fragments, self._pieces)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a state: the keys of `state_dict`, tensors as of `load_template`. Collective."""
        if has_optimizer(state):
            zero_state.install_optimizer(self.optimizer, self._fragments, state, self._pieces)
            zero_state.install_groups(self.optimizer, state["optim_groups"]["groups"])
        with torch.no_grad():
            for name, parameter in self._named():
                whole = self._pieces.whole(state[f"model.{name}"])
                if name in self._fragments:
                    self._fragments[name].weights.copy_(self._fragments[name].take(whole))
                else:
                    write_frozen(parameter, whole)
            parameters = {id(parameter) for parameter in self.module.parameters()}
            for name, value in self._model_state().items():
                if _is_tensor(value) and id(value) not in parameters:
                    value.copy_(self._pieces.whole(state[f"model.{name}"]))
        for name, value in state["model_extra"].items():
            self.module.get_submodule(name.rpartition(".")[0]).set_extra_state(value)
        if self._stage < 3:
            self._zero._hp_optimizer_states_linked = False
        self._refresh()

    @property
    def _zero(self) -> Any:
        return self._started.zero

    def _make_optimizer(self, request: SetupRequest) -> torch.optim.Optimizer:
        made = super()._make_optimizer(request)
        self._fragments: dict[str, Fragment] = fragments_of(self.module, self._zero, self._stage)
        return made

    def _make_scaler(self) -> ZeroScaler | None:
        if self.precision != "fp16":
            return None
        return ZeroScaler(self._zero.override_loss_scale, self._settings.scale, self._settings.scale_interval)

    def _make_averages(self, options: EMA) -> ZeroAverages:
        return ZeroAverages(options, self._fragments, self._pieces, self.group, self._refresh)

    def _backward(self, loss: torch.Tensor) -> None:
        begin_backward(self._zero)
        super()._backward(loss)

    def _clip(self, max_norm: float) -> torch.Tensor:
        if not self._has_gradients:
            return torch.zeros((), device=self.device)
        self._finish()
        norm = gradient_norm(self._zero, self._stage).to(self.device)
        already = self._clipped
        bound = self._zero.clip_grad
        self._zero.clip_grad = min(bound, max_norm) if bound else max_norm
        # DeepSpeed scales them in its step; until then they are as they were
        self._clipped = (self._zero.clip_grad / (norm + 1e-6)).clamp(max=1.0)
        return norm * already

    def _update(self) -> bool:
        if not self._has_gradients:
            raise ConfigError("there are no gradients: call engine.backward(loss) before engine.step()")
        self._finish()
        if self._settings.clip:
            self._zero.clip_grad = self._settings.clip
        self._zero.step()
        updated = not self._zero.overflow
        if isinstance(self._scaler, ZeroScaler):
            self._scaler.update(updated)
        return updated

    def _refresh(self) -> None:
        refresh(self._zero, self._stage)

    def _whole(self, name: str, parameter: nn.Parameter) -> torch.Tensor:
        fragment = self._fragments.get(name)
        return read_frozen(parameter) if fragment is None else gather(fragment, fragment.weights, self.group)

    def _named(self) -> Iterator[tuple[str, nn.Parameter]]:
        for name, parameter in self.module.named_parameters():
            yield strip_wrappers(name), parameter

    def _model_state(self) -> dict[str, Any]:
        # with keep_vars, so that a parameter can be told by its identity; its aliases too
        return {strip_wrappers(name): value for name, value in self.module.state_dict(keep_vars=True).items()}

    def _shape(self, value: torch.Tensor) -> torch.Size:
        return torch.Size(getattr(value, "ds_shape", value.shape))


def _is_tensor(value: Any) -> bool:
    return isinstance(value, torch.Tensor)
