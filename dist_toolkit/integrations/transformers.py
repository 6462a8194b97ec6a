"""Hugging Face's Trainer with the checkpoints of this package: exact resume, preemption, digests, no pickle.

    from dist_toolkit.integrations.transformers import attach

    trainer = Trainer(model, args, train_dataset=data)
    attach(trainer)
    trainer.train()  # goes on where the run was

docs/decisions/0028-trainer-checkpoints.md says why it is done this way.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

from dist_toolkit import seeding
from dist_toolkit.checkpoint import Checkpointer
from dist_toolkit.checkpoint.goal import note_goal
from dist_toolkit.errors import ConfigError
from dist_toolkit.integrations.trainer_best import BestModel
from dist_toolkit.integrations.trainer_data import give_batches_their_numbers
from dist_toolkit.integrations.trainer_engine import trainer_engine
from dist_toolkit.integrations.trainer_progress import DUE, Moment, Progress
from dist_toolkit.integrations.trainer_refusals import refuse_what_cannot_be_kept
from dist_toolkit.integrations.trainer_runtime import open_runtime
from dist_toolkit.runtime import Runtime

_RESTORED = "<dist_toolkit>"  # where the Trainer asks for the folder to resume from


def attach(
    trainer: Any, root: str | Path | None = None, *, keep_every: int | None = None, waive: Collection[str] = (),
    background: bool = True,
) -> TrainerCheckpoints:  # fmt: skip
    """Have `trainer.train()` save and restore by this package. Call it before `train`, on every rank.

    `save_strategy`, `save_steps`, `save_total_limit`, `metric_for_best_model` and `load_best_model_at_end` of its
    TrainingArguments hold as ever. Each call of `train` goes on from the newest whole checkpoint, if there is one.
    After SIGTERM or SIGUSR1 on any rank, all ranks save the same step and leave with exit code 75.

    Args:
        root: the directory of the checkpoints, shared by all nodes, or a URL; default: `checkpoints` in the run
            directory.
        keep_every: steps that are a multiple of this are kept as well as the newest `save_total_limit`.
        waive: parts (`rng`, `schedule`, `strategy`) that a resume may do without.
        background: saves keep training waiting only while the state is copied.

    Raises:
        ConfigError: its transformers is older than 5.3, or an argument cannot be had together with these checkpoints.
    """
    refuse_what_cannot_be_kept(trainer)
    return TrainerCheckpoints(trainer, root, keep_every, tuple(waive), background)


class TrainerCheckpoints:
    """What stands in the place of some methods of one Trainer; `attach` makes it."""

    _OVERRIDDEN = (
        "train", "get_train_dataloader", "_init_training_state", "_prepare_for_training", "_run_epoch",
        "_maybe_log_save_evaluate", "_determine_best_metric", "_evaluate", "_save_checkpoint", "_load_rng_state",
        "_finalize_training", "hyperparameter_search",
    )  # fmt: skip

    def __init__(
        self, trainer: Any, root: str | Path | None, keep_every: int | None, waive: Collection[str], background: bool
    ) -> None:
        if isinstance(getattr(trainer.train, "__self__", None), TrainerCheckpoints):
            raise ConfigError("attach() was called for this Trainer already; call it once")
        self._trainer, self._root, self._keep_every = trainer, root, keep_every
        self._waive, self._background = waive, background
        self._theirs = {name: getattr(trainer, name) for name in self._OVERRIDDEN}
        for name in self._OVERRIDDEN:
            setattr(trainer, name, getattr(self, name))
        self._best = BestModel(trainer)
        self._rt: Runtime
        self._checkpointer: Checkpointer
        self._progress: Progress
        self._loader: Any = None
        self._prepared: Any = None

    # In the place of methods of Trainer.

    def train(self, resume_from_checkpoint: str | bool | None = None, trial: Any = None, *args: Any, **kw: Any) -> Any:
        """See Trainer.train. `resume_from_checkpoint=True` changes nothing: it resumes where there is something.

        Raises:
            ConfigError: a folder of the Trainer's own is to be resumed from.
            Preempted: saved after a request to stop (a SystemExit).
        """
        if isinstance(resume_from_checkpoint, (str, Path)):
            raise ConfigError(
                f"resume_from_checkpoint={str(resume_from_checkpoint)!r} is a folder of the Trainer's own, which "
                "attach() does not read; pass none: the run goes on from its newest checkpoint, if there is one"
            )
        if trial is not None:
            self.hyperparameter_search()
        with open_runtime(self._trainer) as self._rt:
            return self._theirs["train"](None, None, *args, **kw)

    def hyperparameter_search(self, *args: Any, **kw: Any) -> Any:
        """Refused: a ConfigError."""
        raise ConfigError(
            "hyperparameter_search trains many models, attach() keeps one run; use `dtk submit --sweep`, or leave "
            "attach() out"
        )

    def get_train_dataloader(self) -> Any:
        """The loader, with an order and random numbers that can be had again."""
        self._loader = self._theirs["get_train_dataloader"]()
        args = self._trainer.args
        seed = args.seed if args.data_seed is None else args.data_seed
        give_batches_their_numbers(self._loader, seed, args.process_index)
        return self._loader

    def _init_training_state(
        self, max_steps: int, steps_per_epoch: int, epochs: int, resume_from_checkpoint: Any, trial: Any
    ) -> tuple[int, int]:
        """Prepare the model already here: the step is known once all of a checkpoint has been read and found whole."""
        theirs = self._theirs
        place = theirs["_init_training_state"](max_steps, steps_per_epoch, epochs, None, trial)
        self._prepared = theirs["_prepare_for_training"](max_steps, self._loader, None)
        self._open_checkpointer(steps_per_epoch)
        self._began, self._seen_step = time.time(), -1
        restored = self._checkpointer.restore()
        self._resumed = self._to_begin = restored is not None
        if restored is not None:
            self._random = seeding.capture(self._rt.device)
            self._began -= self._progress.moment.seconds
            place = self._progress.place(self._trainer.args.gradient_accumulation_steps)
        if self._rt.settings.run_dir and self._rt.is_main:
            note_goal(self._rt.run_dir, restored or 0, max_steps)
        return int(place[0]), int(place[1])

    def _prepare_for_training(self, *args: Any) -> Any:
        """Has been done."""
        prepared, self._prepared = self._prepared, None
        return prepared

    def _run_epoch(self, *args: Any, **kw: Any) -> None:
        """One epoch, or what is left of it."""
        given = inspect.signature(self._theirs["_run_epoch"]).bind(*args, **kw).arguments
        given["start_time"] = self._began
        if self._resumed:
            self._catch_up(given["trial"], given["ignore_keys_for_eval"])
            if self._trainer.control.should_training_stop:
                return
            given["resume_from_checkpoint"] = _RESTORED
        self._theirs["_run_epoch"](**given)

    def _maybe_log_save_evaluate(
        self, tr_loss: Any, grad_norm: Any, model: Any, trial: Any, epoch: Any, ignore_keys_for_eval: Any,
        start_time: float, learning_rate: float | None = None,
    ) -> None:  # fmt: skip
        """After each step, and at the end of each epoch. Collective."""
        trainer = self._trainer
        at_step = trainer.state.global_step != self._seen_step
        self._seen_step = trainer.state.global_step
        norm = grad_norm.item() if hasattr(grad_norm, "item") else grad_norm
        self._progress.moment = Moment(not at_step, [], norm, learning_rate)
        if self._rt.stop_requested():
            self._progress.moment.due = [name for name in DUE if getattr(trainer.control, name)]
            self._save(wait=True)
            self._checkpointer.leave()
        rest = (model, trial, epoch, ignore_keys_for_eval, start_time)
        self._theirs["_maybe_log_save_evaluate"](tr_loss, grad_norm, *rest, learning_rate=learning_rate)

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        """Note what belongs to the state that is saved next."""
        self._best.evaluated(metrics)
        return bool(self._theirs["_determine_best_metric"](metrics=metrics, trial=trial))

    def _evaluate(self, trial: Any, ignore_keys_for_eval: Any, skip_scheduler: bool = False) -> Any:
        """`eval_on_start` is for the start of the run."""
        if skip_scheduler and self._resumed:
            return None
        return self._theirs["_evaluate"](trial, ignore_keys_for_eval, skip_scheduler)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """A checkpoint of this package. Collective."""
        self._save(wait=not self._background)

    def _load_rng_state(self, checkpoint: Any) -> None:
        """Where the Trainer sets the generators: after the batches that are not trained on again."""
        seeding.restore(self._random, self._rt.device)

    def _finalize_training(self, trial: Any, num_train_samples: Any, start_time: float) -> Any:
        """The end of the run."""
        if self._resumed:
            self._catch_up(trial, None)
        self._checkpointer.wait()
        if self._trainer.args.load_best_model_at_end:
            self._best.load(self._rt, self._checkpointer.root)
        return self._theirs["_finalize_training"](trial, num_train_samples, self._began)

    # Private.

    def _open_checkpointer(self, steps_per_epoch: int) -> None:
        trainer, rt = self._trainer, self._rt
        batch = trainer.args.train_batch_size * trainer.args.gradient_accumulation_steps * trainer.args.world_size
        self._progress = Progress(trainer, rt.group, steps_per_epoch, batch)
        with seeding.preserved(rt.device):
            self._checkpointer = rt.checkpointer(
                self._root,
                engine=trainer_engine(trainer, rt.group),
                state={"trainer": self._progress, "best": self._best},
                keep_last=trainer.args.save_total_limit,
                keep_best=self._best.to_keep,
                keep_every=self._keep_every,
                waive=self._waive,
                background=self._background,
            )

    def _save(self, wait: bool) -> None:
        self._trainer.store_flos()
        self._progress.moment.seconds = time.time() - self._began
        self._checkpointer.report(**self._best.saved_now())
        self._checkpointer.save(int(self._trainer.state.global_step), wait=wait)

    def _catch_up(self, trial: Any, ignore_keys: Any) -> None:
        """After a restore, before anything is trained: what the run had not come to yet at the step that was saved."""
        if not self._to_begin:
            return
        self._to_begin = False
        trainer, progress, moment = self._trainer, self._progress, self._progress.moment
        seeding.restore(self._random, self._rt.device)
        progress.begin_loop()
        self._seen_step = trainer.state.global_step
        rest = (trainer.model_wrapped, trial, trainer.state.epoch, ignore_keys, self._began)

        def again() -> None:
            norm, rate = moment.grad_norm, moment.learning_rate
            self._theirs["_maybe_log_save_evaluate"](trainer._tr_loss, norm, *rest, learning_rate=rate)

        if moment.due:
            for name in moment.due:
                setattr(trainer.control, name, True)
            progress.moment = Moment(moment.epoch_ended, [], moment.grad_norm, moment.learning_rate)
            again()
        stopping = trainer.control.should_training_stop
        if not moment.epoch_ended and (stopping or progress.is_end_of_epoch()):
            progress.moment = Moment(True, [], moment.grad_norm, moment.learning_rate)
            handler = trainer.callback_handler
            trainer.control = handler.on_epoch_end(trainer.args, trainer.state, trainer.control)
            again()
        self._random = seeding.capture(self._rt.device)
