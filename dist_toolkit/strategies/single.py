"""One process, one device: the plain loop, with the Engine's shape."""

from __future__ import annotations

from dataclasses import dataclass

from dist_toolkit.errors import ConfigError
from dist_toolkit.strategies.engine import Engine
from dist_toolkit.strategies.request import SetupRequest
from dist_toolkit.strategies.strategy import Strategy
from dist_toolkit.world import World


@dataclass(frozen=True)
class Single(Strategy):
    """Train on one device."""

    name = "single"

    def check(self, world: World) -> None:
        """One rank only: several would train copies that know nothing of each other."""
        if world.world_size > 1:
            raise ConfigError(
                f"strategy 'single' on {world.world_size} ranks would train as many unrelated models; "
                "use ddp, or --nproc 1"
            )

    def setup(self, request: SetupRequest) -> Engine:
        """Move the model to the device and make its optimizer."""
        return Engine(request.model.build().to(request.group.device), request)
