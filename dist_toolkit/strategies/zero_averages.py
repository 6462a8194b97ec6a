"""Averaged weights under ZeRO: each rank averages its fragments."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from dist_toolkit.errors import StateMismatch
from dist_toolkit.group import Group
from dist_toolkit.strategies.ema import EMA, Averages
from dist_toolkit.strategies.state import compare_tensors
from dist_toolkit.strategies.zero_fragments import Fragment
from dist_toolkit.strategies.zero_state import local_of, part_of
from dist_toolkit.tensors import TensorMeta


class ZeroAverages(Averages):
    """The averages of this rank's fragments, fp32.

    Args:
        refresh: gives the model the weights of the fragments. Collective.
    """

    def __init__(
        self, options: EMA, fragments: Mapping[str, Fragment], group: Group, refresh: Callable[[], None]
    ) -> None:
        super().__init__(options, {name: fragment.weights for name, fragment in fragments.items()})
        self._fragments, self._group, self._refresh = fragments, group, refresh

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """The averages take the weights' place inside, and leave it again. Collective at both ends."""
        try:
            with super().swapped():
                self._refresh()
                yield
        finally:
            self._refresh()

    def state_dict(self) -> dict[str, Any]:
        """The averages as `ema.<name>`, live, each rank's part of them, and the number of steps counted."""
        held = super().state_dict()
        return held | {
            f"ema.{name}": part_of(fragment, held[f"ema.{name}"], self._group)
            for name, fragment in self._fragments.items()
        }

    def load_template(self, saved: Mapping[str, TensorMeta], values: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        """New tensors for this rank's part of the averages.

        Raises:
            StateMismatch: the saved averages are of other weights.
        """
        shapes = {f"ema.{name}": fragment.shape for name, fragment in self._fragments.items()}
        compare_tensors(saved, {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}, "ema")
        if not isinstance(values.get("steps"), int):
            raise StateMismatch("ema", "the checkpoint does not say how many steps were averaged")
        return {
            f"ema.{name}": part_of(fragment, torch.empty_like(self._values[name]), self._group)
            for name, fragment in self._fragments.items()
        }

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take saved averages over."""
        for name, value in self._values.items():
            value.copy_(local_of(state[f"ema.{name}"]))
        self._steps = int(state["steps"])
