"""Which strategy a checkpoint was saved with: a change in the middle of a run is refused, unless it is waived."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dist_toolkit.errors import StateMismatch

_ALIKE = ("single", "ddp", "data_parallel")
"""Each rank has the whole state in these: they take over from each other as the number of ranks changes."""

_CONVERTED = "converted"
"""Written by `dtk ckpt convert` from another program's checkpoint: there is no strategy that could have changed."""


class StrategyMark:
    """The part `strategy` of a checkpoint."""

    def __init__(self, strategy: str, precision: str) -> None:
        self._strategy, self._precision = strategy, precision

    def state_dict(self) -> dict[str, Any]:
        """The names of the strategy and of the precision."""
        return {"name": self._strategy, "precision": self._precision}

    def check_state_dict(self, state: Mapping[str, Any]) -> None:
        """Refuse another strategy, or another precision.

        Raises:
            StateMismatch: names both.
        """
        saved, mine = state["name"], self._strategy
        if saved == _CONVERTED:
            return
        if saved != mine and not (saved in _ALIKE and mine in _ALIKE):
            advice = "auto" if saved in _ALIKE else saved
            raise StateMismatch(
                "strategy",
                f"the run was saved with strategy {saved!r} and is resumed with {mine!r}: its state fits, "
                f"but sums are rounded in another order; go on with --strategy {advice}, or pass waive=['strategy'] to "
                "rt.checkpointer if you mean to change it",
            )

        before = state.get("precision", self._precision)
        if before != self._precision:
            raise StateMismatch(
                "strategy",
                f"the run was saved with precision {before!r} and is resumed with {self._precision!r}; "
                f"go on with {before!r}, or pass waive=['strategy'] to rt.checkpointer if you mean to change it",
            )

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Nothing to take over."""
