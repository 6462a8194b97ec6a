"""What strategies have in common whose forward pass communicates: weights are gathered as layers need them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

from dist_toolkit.strategies.engine import Engine
from dist_toolkit.strategies.shadow import ShadowCalls


class ShardedEngine(Engine):
    """An Engine whose weights are split over ranks, so that every forward pass is collective.

    An instance whose weights are whole (ZeRO 1 and 2) sets its `forward_is_collective` to False.
    """

    forward_is_collective = True
    gradients_are_sharded = True
    _shadow: Callable[[tuple[Any, ...], dict[str, Any]], Any] | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The model's output, 16-bit floats widened. Collective, evaluation included.

        In `evaluating()` ranks may call it a different number of times, or not at all: those with fewer batches run
        along at the end of the block, or before the next collective of this package in it (the sum of a metric).
        """
        if not self.forward_is_collective:
            return super().__call__(*args, **kwargs)
        if self._shadow is not None:
            return self._shadow(args, kwargs)
        with self.group.watched("engine forward"):
            return self._run(args, kwargs)

    @contextmanager
    def _uneven_calls(self) -> Iterator[None]:
        if not self.forward_is_collective or self._shadow is not None or self.group.world.world_size == 1:
            yield
            return
        shadow, new = ShadowCalls.open(self.group)
        number = shadow.add(self._run)
        self._shadow = partial(shadow.run, number)
        try:
            yield
            shadow.finish()  # not after an exception: the others may never call
        finally:
            self._shadow = None
            shadow.remove()
            if new:
                shadow.close()

    def _run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        training = torch.is_grad_enabled() and not self._frozen
        return self._forward(self._wrapped if training else self.module, args, kwargs)
