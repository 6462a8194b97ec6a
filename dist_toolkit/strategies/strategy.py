"""What makes an Engine: the options of one way to train."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from dist_toolkit.strategies.engine import Engine
from dist_toolkit.strategies.request import SetupRequest
from dist_toolkit.world import World


class Strategy(ABC):
    """How to make an Engine. Subclasses are frozen dataclasses of the strategy's options."""

    name: ClassVar[str]
    compared_later: ClassVar[frozenset[str]] = frozenset()
    """Options that may be written differently on each rank: what they come to is compared."""

    @abstractmethod
    def check(self, world: World) -> None:
        """Refuse a world that this strategy cannot run in.

        Raises:
            ConfigError: with what to do instead.
        """

    @abstractmethod
    def setup(self, request: SetupRequest) -> Engine:
        """Place the model and make its optimizer. Collective.

        Raises:
            ConfigError: this model or optimizer cannot be trained this way.
        """
