"""The loss scale of fp16 under ZeRO: DeepSpeed multiplies and divides by it, and sees overflows on all ranks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from dist_toolkit.strategies.precision import LossScaler


class ZeroScaler(LossScaler):
    """Halved after a skipped step, doubled after `interval` steps in a row; the same on every rank.

    Args:
        tell: gives DeepSpeed the scale.
    """

    def __init__(self, tell: Callable[[float], None], initial: float = 65536.0, interval: int = 2000) -> None:
        self._tell, self._scale, self._interval, self._steps = tell, initial, interval, 0
        tell(initial)

    def scale(self, loss: torch.Tensor) -> torch.Tensor:
        """The loss itself: DeepSpeed scales it."""
        return loss

    @property
    def value(self) -> float:
        """The scale."""
        return self._scale

    def unscale(self, optimizer: torch.optim.Optimizer) -> None:
        """Nothing: DeepSpeed divides when it steps."""

    def update(self, stepped: bool) -> None:
        """Move the scale after a step that was made or skipped."""
        self._steps = self._steps + 1 if stepped else 0
        if not stepped:
            self._scale /= 2
        elif self._steps == self._interval:
            self._scale, self._steps = self._scale * 2, 0
        self._tell(self._scale)

    def state_dict(self) -> dict[str, Any]:
        """The scale and the steps since it last moved."""
        return {"scale": self._scale, "steps_since": self._steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with a saved scale."""
        self._scale, self._steps = float(state["scale"]), int(state["steps_since"])
        self._tell(self._scale)
