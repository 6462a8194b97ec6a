"""The loops of `tables.LOOPS`, each as the documentation of its library writes it."""

from __future__ import annotations

import importlib
from contextlib import ExitStack
from typing import Any, Protocol

from torch import nn

from ..tables import LOOPS
from ..work import Job


class Loop(Protocol):
    """A training loop that goes on where it stopped."""

    def __init__(self, job: Job, feed: str, cleanup: ExitStack) -> None:
        """Set up. Collective. What has to be ended goes to `cleanup`."""

    def run(self, steps: int) -> None:
        """Train this many steps. Collective."""

    def trained(self) -> nn.Module:
        """The model, without wrappers."""


def make(name: str, job: Job, feed: str, cleanup: ExitStack) -> Loop:
    """Set up the loop of this name. Collective."""
    module, _, attribute = LOOPS[name].make.partition(":")
    cls: Any = getattr(importlib.import_module(f".{module}", __package__), attribute)
    made: Loop = cls(job, feed, cleanup)
    return made
