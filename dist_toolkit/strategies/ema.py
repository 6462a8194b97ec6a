"""An exponential moving average of the weights, for evaluation and for sampling."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.optim.swa_utils import get_ema_multi_avg_fn

from dist_toolkit.errors import ConfigError, StateMismatch
from dist_toolkit.strategies.state import compare_tensors
from dist_toolkit.tensors import TensorMeta


@dataclass(frozen=True)
class EMA:
    """Keep averaged weights: after every `every`-th step, average = decay * average + (1 - decay) * weights.

    Attributes:
        decay: in 0..1, exclusive.
        every: optimizer steps between two updates, at least 1.
    """

    decay: float = 0.999
    every: int = 1

    def __post_init__(self) -> None:
        if not isinstance(self.decay, (int, float)) or not 0.0 < self.decay < 1.0:
            raise ConfigError(f"EMA(decay={self.decay!r}) is not between 0 and 1; 0.999 is usual")
        if not isinstance(self.every, int) or self.every < 1:
            raise ConfigError(f"EMA(every={self.every}) is not a positive number of steps")


class Averages:
    """The averages of one engine's trainable weights: fp32, placed and sharded as the weights are.

    It is a part of a checkpoint of its own (`ema.<name>`), so that `waive=["ema"]` can start it anew.
    """

    prefixes = ("ema.",)

    def __init__(self, options: EMA, weights: Mapping[str, torch.Tensor]) -> None:
        self._weights = dict(weights)
        self._values = {name: tensor.detach().clone().float() for name, tensor in weights.items()}
        self._average = get_ema_multi_avg_fn(options.decay)  # type: ignore[no-untyped-call]
        self._every, self._steps = options.every, 0
        self._swapped = False

    @torch.no_grad()
    def update(self) -> None:
        """Count a step, and average the weights in if it is due. Local."""
        self._steps += 1
        if self._steps % self._every == 0:
            # the function computes with lists of tensors, in a few kernels
            weights: Any = [weight.detach().float() for weight in self._weights.values()]
            self._average(tuple(self._values.values()), tuple(weights), self._steps)

    @property
    def is_swapped(self) -> bool:
        """Whether the averages are in the weights' place now."""
        return self._swapped

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """The averages take the weights' place inside, and leave it again. Local.

        Raises:
            ConfigError: they are there already.
        """
        if self._swapped:
            raise ConfigError("the averages are in the model already; `engine.averaged()` does not nest")
        self._swap()
        self._swapped = True
        try:
            yield
        finally:
            self._swap()
            self._swapped = False

    def state_dict(self) -> dict[str, Any]:
        """The averages, live, as `ema.<name>`, and the number of steps counted."""
        if self._swapped:
            raise ConfigError("the averages are in the model now; save outside `with engine.averaged()`")
        return {**{f"ema.{name}": value for name, value in self._values.items()}, "steps": self._steps}

    def load_template(self, saved: Mapping[str, TensorMeta], values: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        """New tensors like the averages.

        Raises:
            StateMismatch: the saved averages are of other weights.
        """
        mine = {f"ema.{name}": value for name, value in self._values.items()}
        compare_tensors(saved, mine, "ema")
        if not isinstance(values.get("steps"), int):
            raise StateMismatch("ema", "the checkpoint does not say how many steps were averaged")
        return {name: torch.empty_like(value) for name, value in mine.items()}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take saved averages over."""
        for name, value in self._values.items():
            value.copy_(state[f"ema.{name}"])
        self._steps = int(state["steps"])

    @torch.no_grad()
    def _swap(self) -> None:
        for name, value in self._values.items():
            weight = self._weights[name]
            kept = weight.detach().clone()
            weight.copy_(value)
            value.copy_(kept)
