"""Accelerate's save_state and load_state, of a model that every rank holds."""

from __future__ import annotations

import torch
from accelerate import Accelerator
from torch import nn

from ..place import sync
from ..state import Tensors
from . import Job, Method


class Accelerated(Method):
    """The weights of one model, as safetensors, which is the default; and a small file of random states a rank."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        model = nn.ParameterDict({name: nn.Parameter(t, requires_grad=False) for name, t in job.state.whole.items()})
        self._accelerator = Accelerator(cpu=True)
        self._model = self._accelerator.prepare_model(model, evaluation_mode=True)  # registered, without DDP around it

    def before_save(self) -> None:
        """The model holds the state."""
        for name, parameter in self._model.items():
            parameter.data = self.state.whole[name]

    def save(self) -> None:
        """save_state, and fsync of what this rank wrote and of the directory."""
        self._accelerator.save_state(str(self.folder))
        for path in self.folder.iterdir():
            if path.name == f"random_states_{self.rank}.pkl" or (self.rank == 0 and path.suffix == ".safetensors"):
                sync(path)
        sync(self.folder)

    def before_load(self) -> None:
        """A model with other weights."""
        for parameter in self._model.values():
            parameter.data = torch.zeros_like(parameter.data)

    def load(self) -> Tensors:
        """load_state: every rank the whole."""
        self._accelerator.load_state(str(self.folder))
        return {name: parameter.data for name, parameter in self._model.items()}
