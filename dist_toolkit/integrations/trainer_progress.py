"""How far a Trainer has come: the part `trainer` of a checkpoint."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dist_toolkit.group import Group

_LOG = logging.getLogger("dist_toolkit")

_KEPT = (
    "global_step", "epoch", "log_history", "total_flos", "num_input_tokens_seen", "best_metric", "best_global_step",
)  # fmt: skip
"""Of TrainerState; the rest follows from TrainingArguments."""

_OTHER = (
    "its place in the data is counted in steps, so this epoch sees other samples than it would have; keep the product "
    "of per_device_train_batch_size, gradient_accumulation_steps and ranks to go on exactly"
)

DUE = ("should_log", "should_evaluate", "should_save")


@dataclass
class Moment:
    """Where between two steps a checkpoint is taken, and what is still to be done there.

    Attributes:
        epoch_ended: whether the end of the epoch has been dealt with, too.
        due: flags of TrainerControl that are to be acted on after a resume.
        grad_norm, learning_rate: of the last step, for its line in the log.
        seconds: of training until here, over all starts.
    """

    epoch_ended: bool = False
    due: list[str] = field(default_factory=list)
    grad_norm: float | None = None
    learning_rate: float | None = None
    seconds: float = 0.0


class Progress:
    """The Trainer's own state: what it has logged, sums that it has not logged yet, its callbacks, its place.

    Attributes:
        moment: written with the next capture; after a load, what was saved.
        steps_per_epoch, batch: optimizer steps of an epoch, and samples of a step over all ranks.
        saved: what was loaded; None before.
    """

    def __init__(self, trainer: Any, group: Group, steps_per_epoch: int, batch: int) -> None:
        self.moment = Moment()
        self.steps_per_epoch, self.batch = steps_per_epoch, batch
        self.saved: Mapping[str, Any] | None = None
        self._trainer, self._group = trainer, group

    def state_dict(self) -> dict[str, Any]:
        """Plain data, the same on every rank: rank 0's, and the sums of all. Collective."""
        trainer = self._trainer
        losses = self._group.all_gather_json(trainer._tr_loss.item())
        control = {item.name: getattr(trainer.control, item.name) for item in dataclasses.fields(trainer.control)}
        mine = {
            "state": {name: getattr(trainer.state, name) for name in _KEPT},
            "callbacks": {name: [c.state()["attributes"] for c in given] for name, given in self._callbacks().items()},
            "stop": control["should_training_stop"] and trainer.state.global_step < trainer.state.max_steps,
            "stop_epoch": control["should_epoch_stop"],
            "losses": losses,
            "total_loss": trainer._total_loss_scalar,
            "last_logged": trainer._globalstep_last_logged,
            "steps_per_epoch": self.steps_per_epoch,
            "batch": self.batch,
            "moment": dataclasses.asdict(self.moment),
        }
        shared = self._group.broadcast_json(json.dumps(mine))  # as a string: nan and inf of a log stay what they are
        found: dict[str, Any] = json.loads(shared)
        return found

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what lasts; `begin_loop` does the rest, which the Trainer sets to zero as its loop begins."""
        trainer = self._trainer
        self.saved = state
        self.moment = Moment(**state["moment"])
        for name, value in state["state"].items():
            setattr(trainer.state, name, value)
        if state["batch"] != self.batch and self._group.world.is_main:
            _LOG.warning("a step of this run had %d samples and has %d now: %s", state["batch"], self.batch, _OTHER)
        here = self._callbacks()
        for name, saved in state["callbacks"].items():
            given = len(here.get(name, ()))
            if given != len(saved) and self._group.world.is_main:
                _LOG.warning("the checkpoint has the state of %d %s, the Trainer has %d", len(saved), name, given)
            for callback, attributes in zip(here.get(name, ()), saved, strict=False):
                for key, value in attributes.items():
                    setattr(callback, key, value)

    def begin_loop(self) -> None:
        """What was restored, into what the Trainer has just set to zero."""
        trainer, saved = self._trainer, self.saved
        if saved is None:
            return
        losses, rank = saved["losses"], self._group.world.rank
        same = len(losses) == self._group.world.world_size
        trainer._tr_loss.fill_(losses[rank] if same else sum(losses) / len(losses))
        trainer._total_loss_scalar = saved["total_loss"]
        trainer._globalstep_last_logged = saved["last_logged"]
        trainer._initial_global_step = trainer._initial_num_input_tokens_seen = 0  # the run began at the first step
        trainer.control.should_training_stop = saved["stop"] or trainer.state.global_step >= trainer.state.max_steps

    def place(self, accumulation: int) -> tuple[int, int]:
        """(epochs that are over, batches of the next one to skip)."""
        epochs, steps = divmod(int(self._trainer.state.global_step), self.steps_per_epoch)
        return epochs, steps * accumulation

    def is_end_of_epoch(self) -> bool:
        """Whether the saved step was the last of its epoch."""
        saved = self.saved or {}
        return bool(saved["stop_epoch"]) or saved["state"]["global_step"] % saved["steps_per_epoch"] == 0

    def _callbacks(self) -> dict[str, list[Any]]:
        """Callbacks that have a state, by the name of their class, in their order."""
        found: dict[str, list[Any]] = {}
        for callback in self._trainer.callback_handler.callbacks:
            if callable(getattr(callback, "state", None)):
                found.setdefault(type(callback).__name__, []).append(callback)
        return found
