"""The metric by which a Trainer chooses its best model, and the checkpoint that holds it: the part `best`."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from dist_toolkit import seeding
from dist_toolkit.errors import CheckpointNotFound
from dist_toolkit.integrations.trainer_engine import trainer_engine

_LOG = logging.getLogger("dist_toolkit")


class BestModel:
    """`metric_for_best_model`, `greater_is_better` and `load_best_model_at_end` of TrainingArguments.

    Attributes:
        step: of the checkpoint with the best metric so far; None before one was saved.
    """

    def __init__(self, trainer: Any) -> None:
        self.step: int | None = None
        self._trainer = trainer
        self._value: tuple[int, float] | None = None

    @property
    def name(self) -> str | None:
        """Of the metric, as evaluations report it."""
        given: str | None = self._trainer.args.metric_for_best_model
        return given if given is None or given.startswith("eval_") else f"eval_{given}"

    @property
    def to_keep(self) -> str | None:
        """`max:NAME` or `min:NAME`, for a checkpointer."""
        if self.name is None:
            return None
        return f"{'max' if self._trainer.args.greater_is_better else 'min'}:{self.name}"

    def evaluated(self, metrics: Mapping[str, float]) -> None:
        """The state of the current step has been evaluated."""
        name = self.name
        if name is not None and name in metrics:
            self._value = (self._trainer.state.global_step, float(metrics[name]))

    def saved_now(self) -> dict[str, float]:
        """What is known of the state that is about to be saved."""
        state = self._trainer.state
        if self.name is None or self._value is None or self._value[0] != state.global_step:
            return {}
        if state.best_global_step == state.global_step:
            self.step = int(state.global_step)
        return {self.name: self._value[1]}

    def load(self, rt: Any, root: str) -> None:
        """Put the best model's weights in the place of the last one's. Collective."""
        if self.step is None:
            return
        with seeding.preserved(rt.device):
            checkpointer = rt.checkpointer(root, engine=trainer_engine(self._trainer, rt.group, alone=True))
            try:
                checkpointer.restore(self.step)
            except CheckpointNotFound as error:
                if rt.is_main:
                    _LOG.warning("the best model is not loaded, the last one stays: %s", error)

    def state_dict(self) -> dict[str, Any]:
        """The step of the best model."""
        return {"step": self.step}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        self.step = state["step"]
