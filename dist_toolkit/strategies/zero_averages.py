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
from dist_toolkit.strategies.zero_fragments import Fragment, gather
from dist_toolkit.strategies.zero_state import Pieces
from dist_toolkit.tensors import TensorMeta


class ZeroAverages(Averages):
    """The averages of this rank's fragments, fp32.

    Args:
        refresh: gives the model the weights of the fragments. Collective.
    """

    def __init__(
        self, options: EMA, fragments: Mapping[str, Fragment], pieces: Pieces, group: Group, refresh: Callable[[], None]
    ) -> None:
        super().__init__(options, {name: fragment.weights for name, fragment in fragments.items()})
        self._fragments, self._pieces, self._group, self._refresh = fragments, pieces, group, refresh

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
        """The averages as `ema.<name>`, in pieces, and the number of steps counted. Collective."""
        held = super().state_dict()
        whole = {
            f"ema.{name}": self._pieces.cut(gather(fragment, held[f"ema.{name}"], self._group))
            for name, fragment in self._fragments.items()
        }
        return held | whole

    def load_template(self, saved: Mapping[str, TensorMeta], values: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        """New pieces.

        Raises:
            StateMismatch: the saved averages are of other weights.
        """
        shapes = {f"ema.{name}": fragment.shape for name, fragment in self._fragments.items()}
        compare_tensors(saved, {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}, "ema")
        if not isinstance(values.get("steps"), int):
            raise StateMismatch("ema", "the checkpoint does not say how many steps were averaged")
        return {key: self._pieces.empty(shape, torch.float32) for key, shape in shapes.items()}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take saved averages over. Collective."""
        for name, fragment in self._fragments.items():
            self._values[name].copy_(fragment.take(self._pieces.whole(state[f"ema.{name}"])))
        self._steps = int(state["steps"])
