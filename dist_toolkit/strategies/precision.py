"""Mixed precision: what a forward pass computes in, and the loss scale that fp16 needs."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from dist_toolkit.errors import ConfigError
from dist_toolkit.process_group import Group
from dist_toolkit.tensors import map_tensors


def autocast(device: torch.device, dtype: torch.dtype | None) -> AbstractContextManager[Any]:
    """torch's autocast in `dtype`; nothing for None (fp32)."""
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)


def as_float32(output: Any) -> Any:
    """A model's output with tensors of 16-bit floats in it widened, so that a loss is computed in fp32."""
    return map_tensors(output, lambda tensor: tensor.float() if tensor.dtype in _NARROW else tensor)


_NARROW = (torch.bfloat16, torch.float16)


class LossScaler:
    """torch's GradScaler, with one answer on all ranks to whether a step is skipped.

    Where gradients are sharded, an overflow is seen by the rank that holds it; the others learn of it by one reduction.

    Args:
        agree: whether gradients differ between ranks, so that the ranks have to agree.
        initial: the first scale, a power of two; halved after an overflow, doubled after `interval` steps without.
    """

    def __init__(self, group: Group, agree: bool, initial: float = 65536.0, interval: int = 2000) -> None:
        self._group, self._agree = group, agree
        self._scaler = torch.amp.GradScaler(group.device.type, init_scale=initial, growth_interval=interval)
        self._unscaled = self._in_use = False

    def scale(self, loss: torch.Tensor) -> torch.Tensor:
        """The loss times the scale."""
        self._in_use = True
        scaled: torch.Tensor = self._scaler.scale(loss)
        return scaled

    @property
    def value(self) -> float:
        """The scale. Waits for the device."""
        return float(self._scaler.get_scale())

    def unscale(self, optimizer: torch.optim.Optimizer) -> None:
        """Divide the gradients by the scale, once a step; a second call does nothing.

        Raises:
            ConfigError: there has been no backward pass.
        """
        if not self._in_use:
            raise ConfigError("there are no gradients: call engine.backward(loss) first")
        if not self._unscaled:
            self._scaler.unscale_(optimizer)
            self._unscaled = True

    def forget(self) -> None:
        """The gradients are gone: the next ones are scaled."""
        if self._unscaled:
            self._scaler.update(self._scaler.get_scale())  # torch's way to begin a step anew
            self._unscaled = False

    def step(self, optimizer: torch.optim.Optimizer) -> bool:
        """Step unless a gradient on any rank is inf or nan, and move the scale; whether it stepped. Collective."""
        self.unscale(optimizer)
        overflow = any(flag.item() for flag in self._found(optimizer))
        if not overflow:
            optimizer.step()
        self._scaler.update()
        self._unscaled = False
        return not overflow

    def state_dict(self) -> dict[str, Any]:
        """The scale and the steps since it last moved: the same on every rank."""
        state = self._scaler.state_dict()
        return {"scale": float(state["scale"]), "steps_since": int(state["_growth_tracker"])}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with a saved scale."""
        mine = self._scaler.state_dict()
        self._scaler.load_state_dict(
            {**mine, "scale": float(state["scale"]), "_growth_tracker": int(state["steps_since"])}
        )

    def _found(self, optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
        """The overflow flags of the step, the same on every rank; they are what the scaler's update reads."""
        flags = list(self._scaler._found_inf_per_device(optimizer).values())
        if self._agree:
            for flag in flags:
                self._group.all_reduce(flag, "max")
        return flags
