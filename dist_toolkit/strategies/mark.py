"""Which strategy a checkpoint was saved with: a change in the middle of a run is refused, unless it is waived."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dist_toolkit.errors import StateMismatch

_ALIKE = ("single", "ddp", "data_parallel")
"""Each rank has the whole state in these: they take over from each other as the number of ranks changes."""


class StrategyMark:
    """The part `strategy` of a checkpoint."""

    def __init__(self, strategy: str) -> None:
        self._strategy = strategy

    def state_dict(self) -> dict[str, Any]:
        """The name."""
        return {"name": self._strategy}

    def check_state_dict(self, state: Mapping[str, Any]) -> None:
        """Refuse another strategy.

        Raises:
            StateMismatch: names both.
        """
        saved, mine = state["name"], self._strategy
        if saved != mine and not (saved in _ALIKE and mine in _ALIKE):
            raise StateMismatch(
                "strategy",
                f"the run was saved with strategy {saved!r} and is resumed with {mine!r}: its state fits, "
                f"but sums are rounded in another order; go on with --strategy {saved}, or pass waive=['strategy'] to "
                "rt.checkpointer if you mean to change it",
            )

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Nothing to take over."""
