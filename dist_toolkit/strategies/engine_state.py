"""What an engine gives to a checkpoint, and takes back: the same names for every strategy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from dist_toolkit.group import Group
from dist_toolkit.strategies.state import (
    capture_optimizer,
    check_optimizer,
    compare_tensors,
    has_optimizer,
    install_optimizer,
    optimizer_template,
    strip_wrappers,
)
from dist_toolkit.tensors import TensorMeta


class EngineState:
    """The state of a model and its optimizer under canonical names. Engines are one; sharded ones override parts."""

    module: nn.Module
    optimizer: torch.optim.Optimizer
    group: Group

    prefixes = ("model.", "optim.")
    """What the keys of its tensors in `state_dict` start with."""

    def state_dict(self) -> dict[str, Any]:
        """Weights, buffers and optimizer state under canonical names, the same for every strategy. Collective.

        Keys: `model.<name>`, `optim.<name>.<state>`, and the plain values `optim_groups` and `model_extra` (what
        modules give as `get_extra_state`). The tensors are the live ones.
        """
        self._sync_buffers()
        state: dict[str, Any] = {f"model.{name}": tensor for name, tensor in self._model_tensors().items()}
        state["model_extra"] = {name: value for name, value in self._model_state().items() if _is_extra(name)}
        return state | capture_optimizer(self.optimizer, self._names())

    def load_template(self, saved: Mapping[str, TensorMeta], values: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        """New tensors, placed and split like this engine's own, to read a saved state into. Changes nothing.

        Raises:
            StateMismatch: the saved state is not of this model and optimizer.
        """
        live = {f"model.{name}": tensor for name, tensor in self._model_tensors().items()}
        compare_tensors({key: meta for key, meta in saved.items() if key.startswith("model.")}, live, "model")
        check_optimizer(self.optimizer, self._names(), values, self.group.world.is_main)
        template = {key: torch.empty_like(tensor) for key, tensor in live.items()}
        return template | optimizer_template(self.optimizer, self._names(), saved)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a state: the keys of `state_dict`, tensors as of `load_template`; the optimizer keeps its own."""
        with torch.no_grad():
            for name, tensor in self._model_tensors().items():
                tensor.copy_(state[f"model.{name}"])
        for name, value in state["model_extra"].items():
            self.module.get_submodule(name.rpartition(".")[0]).set_extra_state(value)
        if has_optimizer(state):
            install_optimizer(self.optimizer, self._names(), state)

    def _sync_buffers(self) -> None:
        """Give every rank rank 0's buffers."""

    def _model_state(self) -> dict[str, Any]:
        return {strip_wrappers(name): value for name, value in self.module.state_dict().items()}

    def _model_tensors(self) -> dict[str, torch.Tensor]:
        return {name: value for name, value in self._model_state().items() if not _is_extra(name)}

    def _names(self) -> dict[torch.Tensor, str]:
        return {parameter: strip_wrappers(name) for name, parameter in self.module.named_parameters()}


def _is_extra(name: str) -> bool:
    return name.rpartition(".")[2] == "_extra_state"
