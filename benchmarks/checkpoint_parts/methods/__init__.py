"""The methods of `tables.METHODS`, each as the documentation of its library writes it."""

from __future__ import annotations

import importlib
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..state import State, Tensors
from ..tables import METHODS


@dataclass(frozen=True)
class Job:
    """What a method is made of."""

    state: State
    folder: Path
    """Empty before every save; no other method writes there."""
    rank: int
    ranks: int
    cleanup: ExitStack
    """Takes what has to be ended."""


class Method:
    """A way to save and to load. All calls are collective."""

    def __init__(self, job: Job) -> None:
        self.job, self.state, self.folder, self.rank = job, job.state, job.folder, job.rank

    def before_save(self) -> None:
        """Outside the clock."""

    def save(self) -> None:
        """Save; return when training could go on."""
        raise NotImplementedError

    def wait(self) -> None:
        """Until what was saved is durable."""

    def before_load(self) -> None:
        """Outside the clock."""

    def load(self) -> Tensors:
        """What was saved last: this rank's share, or the whole."""
        raise NotImplementedError


class Copy:
    """A copy of this rank's share to memory that was used before, in one call."""

    def __init__(self, state: State) -> None:
        self._source = list(state.shares.values())
        self._target = [torch.zeros_like(tensor) for tensor in self._source]

    def run(self) -> None:
        """Copy."""
        torch._foreach_copy_(self._target, self._source)


def make(name: str, job: Job) -> Method:
    """Set up the method of this name. Collective."""
    module, _, attribute = METHODS[name].make.partition(":")
    cls: Any = getattr(importlib.import_module(f".{module}", __package__), attribute)
    made: Method = cls(job)
    return made
