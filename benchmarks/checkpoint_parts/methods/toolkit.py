"""dist_toolkit's checkpointer over a sharded state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

import dist_toolkit as dtk

from ..state import State, Tensors
from . import Job, Method

_PATIENCE = 7 * 86400.0  # seconds; methods wait for their turn outside of collectives


class _Holder:
    """What an engine is to the checkpointer, without a model: new tensors are read into, and then kept."""

    prefixes = ("model.",)
    steps_taken = 0

    def __init__(self, state: State) -> None:
        self._tensors = {f"model.{name}": tensor for name, tensor in state.sharded.items()}
        self.loaded: Mapping[str, torch.Tensor] = {}

    def state_dict(self) -> dict[str, torch.Tensor]:
        return dict(self._tensors)

    def load_template(self, saved: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        return {name: torch.empty_like(tensor) for name, tensor in self._tensors.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.loaded = state


class Toolkit(Method):
    """save and restore."""

    wait_in_save = True

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        runtime = job.cleanup.enter_context(dtk.init(device="cpu", timeout=_PATIENCE))
        self._holder = _Holder(job.state)
        self._checkpointer = runtime.checkpointer(job.folder, engine=self._holder)
        self._step = 0

    def save(self) -> None:
        """One checkpoint, of a new step."""
        self._step += 1
        self._checkpointer.save(self._step, wait=self.wait_in_save)

    def wait(self) -> None:
        """Until it is committed."""
        self._checkpointer.wait()

    def load(self) -> Tensors:
        """With every digest compared."""
        self._checkpointer.restore()
        loaded, self._holder.loaded = self._holder.loaded, {}
        return {name.removeprefix("model."): tensor.to_local() for name, tensor in loaded.items()}


class InBackground(Toolkit):
    """The same, but save returns once the state is copied."""

    wait_in_save = False
