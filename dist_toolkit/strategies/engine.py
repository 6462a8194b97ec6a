"""The one shape that every strategy gives a training script."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn

from dist_toolkit import seeding
from dist_toolkit.errors import ConfigError
from dist_toolkit.strategies.ema import EMA, Averages
from dist_toolkit.strategies.engine_state import EngineState
from dist_toolkit.strategies.in_words import describe_optimizer
from dist_toolkit.strategies.mark import StrategyMark
from dist_toolkit.strategies.micro_batches import Weigh, micro_batches
from dist_toolkit.strategies.optimizers import refuse_optimizer
from dist_toolkit.strategies.precision import LossScaler, as_float32, autocast
from dist_toolkit.strategies.request import SetupRequest, make_optimizer, make_scheduler
from dist_toolkit.strategies.same_model import check_same, together
from dist_toolkit.strategies.state import strip_wrappers
from dist_toolkit.strategies.trained import TrainedParameters
from dist_toolkit.strategies.unused import warn_of_unused


class Engine(EngineState):
    """A model and its optimizer, ready to train on this rank's share of each global batch.

    This class trains on one process; a strategy overrides what differs.

    Attributes:
        module: the user's model, without any wrapper.
        optimizer: the optimizer over its parameters.
        scheduler: the learning-rate schedule, stepped by `step`; None without one.
        precision: `fp32`, `bf16` or `fp16`: what the model computes in. Weights and optimizer state are fp32.
    """

    strategy = "single"
    forward_is_collective = False
    """Whether every forward pass communicates, evaluation included."""

    gradients_are_sharded = False
    """Whether ranks hold different parts of the gradients after `backward`."""

    def __init__(self, module: nn.Module, request: SetupRequest, wrapped: Callable[..., Any] | None = None) -> None:
        self.module, self.group, self.precision = module, request.group, request.precision
        self.optimizer: torch.optim.Optimizer = self._make_optimizer(request)
        check_same("the optimizer", describe_optimizer(self.optimizer), self.group)
        self.scheduler = together(
            "making the schedule", lambda: make_scheduler(request.scheduler, self.optimizer), self.group
        )
        self._wrapped: Callable[..., Any] = module if wrapped is None else wrapped
        self._dtype = request.dtype
        self._scaler = self._make_scaler()
        self._averages = None if request.ema is None else self._make_averages(request.ema)
        self._batch_weight = request.batch_weight
        self._micro_weight: float | torch.Tensor | None = None
        self._frozen = False
        self._trained = TrainedParameters(module)
        self._first_step = True
        self._steps = 0

    @property
    def steps_taken(self) -> int:
        """Calls of `step` on this object, skipped updates included."""
        return self._steps

    @property
    def device(self) -> torch.device:
        """The device that the model is on."""
        return self.group.device

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The model's output, 16-bit floats widened. Collective while gradients are recorded, else local.

        Sharded strategies (fsdp, deepspeed stage 3) communicate in both; in `evaluating()`, ranks may still call it a
        different number of times.
        """
        if torch.is_grad_enabled() and not self._frozen:
            with self.group.watched("engine forward"):
                return self._forward(self._wrapped, args, kwargs)
        return self._forward(self.module, args, kwargs)

    def backward(self, loss: torch.Tensor, weight: float | torch.Tensor | None = None) -> None:
        """Add the gradients of a scalar `loss`, a mean over this rank's samples. Collective.

        Args:
            weight: of this rank's loss in the average over ranks. None: what the loader says of the newest training
                batch (1.0 unless the last batch of an epoch is shared unevenly), and in `accumulate` the micro-batch's.
        """
        weight = self._next_weight() if weight is None else weight
        if isinstance(weight, torch.Tensor) or weight != 1.0:
            loss = loss * weight
        with self.group.watched("engine backward"):
            self._backward(loss if self._scaler is None else self._scaler.scale(loss))

    def step(self) -> bool:
        """Update the weights with the gradients, clear them, and step schedule and averages. Collective.

        Returns:
            Whether it updated: False where fp16 gradients overflowed on any rank. The step is then skipped on all
            ranks, schedule and averages included, and the loss scale is lowered.

        Raises:
            ConfigError: the averaged weights are in the model, or parameters were frozen or unfrozen since rt.setup.
        """
        if self._averages is not None and self._averages.is_swapped:
            raise ConfigError("the averages are in the model now; step outside `with engine.averaged()`")
        self._trained.check()
        if self._first_step:
            self._check_unused()
            self._first_step = False
        with self.group.watched("engine step"):
            updated = self._update()
        self._steps += 1
        if self._steps > self.group.step:  # the loop of a checkpointer counts itself, over restarts
            self.group.step = self._steps
        self.zero_grad()
        if updated:
            if self.scheduler is not None:
                self.scheduler.step()
            if self._averages is not None:
                self._averages.update()
        return updated

    def zero_grad(self) -> None:
        """Forget the gradients."""
        self.optimizer.zero_grad(set_to_none=True)
        if self._scaler is not None:
            self._scaler.forget()

    def clip_grad_norm(self, max_norm: float) -> torch.Tensor:
        """Scale the gradients so that their global 2-norm is at most `max_norm`; call it between backward and step.

        Collective. fp16 gradients are unscaled first.

        Returns:
            The norm before, over all ranks and shards: a scalar tensor, the same on every rank.
        """
        self._unscale()
        return torch.nn.utils.clip_grad_norm_(self.module.parameters(), max_norm)

    def accumulate(self, batch: Any, count: int | None = None, weigh: Weigh | None = None) -> Iterator[Any]:
        """Micro-batches of this rank's share of a global batch, for one optimizer step. `step` comes after the loop.

        Ranks communicate gradients at the last one only (ZeRO 2 and 3 at each). Each loss is weighted so that the
        gradient is that of the whole global batch.

        Args:
            batch: a batch to split along dimension 0 into `count`; or, without `count`, a list of micro-batches, as
                many on every rank. If they come from a loader, they are its newest.
            weigh: from a micro-batch to the number that its loss is a mean over (tokens that are not padding): a
                number or a scalar tensor. None: samples. The totals of all ranks are summed by one reduction, where
                there is `weigh` or a list.

        Raises:
            ConfigError: `count` is not positive or more than there are samples, or the batch holds no tensor.
        """
        # the first batch of a run tells whether `count` fits; a later one may be the short last one of an epoch
        fill = not self._first_step or self.group.step > 1 or self._batch_weight.value != 1.0
        window = micro_batches(batch, count, weigh, self.group, self._batch_weight, fill)
        try:
            for number, (piece, weight) in enumerate(window):
                self._micro_weight = weight
                with self._window(last=number == len(window) - 1):
                    yield piece
        finally:
            self._micro_weight = None

    def train(self, mode: bool = True) -> None:
        """Switch the model between training and evaluation mode."""
        self.module.train(mode)

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Evaluation mode without gradients; afterwards modes and random generators are as before. Collective.

        All ranks evaluate with rank 0's buffers (running statistics of normalisation layers). Inside, ranks may call
        the engine a different number of times.
        """
        modes = [(module, module.training) for module in self.module.modules()]
        self._sync_buffers()
        with seeding.preserved(self.device), torch.no_grad():
            self.module.eval()
            try:
                with self._uneven_calls():
                    yield
            finally:
                for module, training in modes:
                    module.training = training

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The averaged weights (see `EMA`) in the model's place, for evaluation; afterwards the trained ones again.

        Raises:
            ConfigError: the engine was set up without ema=.
        """
        if self._averages is None:
            raise ConfigError("this engine keeps no averaged weights; pass rt.setup(..., ema=dtk.EMA(decay=0.999))")
        with self._averages.swapped():
            yield

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Gradients flow through the model to its input, and its parameters get none: for the other player of a GAN.

        Inside, call the engine and `backward` the other engine's loss.
        """
        trained = [parameter for parameter in self.module.parameters() if parameter.requires_grad]
        self._set_requires_grad(trained, False)
        before, self._frozen = self._frozen, True
        try:
            yield
        finally:
            self._frozen = before
            self._set_requires_grad(trained, True)

    @contextmanager
    def join(self) -> Iterator[None]:
        """torch's Join: ranks with fewer batches of the script's own shadow the others' reductions. Collective.

        Loaders of this package do not need it. Inside, no other collective may be called. Only `ddp` can do it.

        Raises:
            ConfigError: another strategy on more than one rank.
        """
        if self.group.world.world_size > 1:
            raise ConfigError(
                f"strategy {self.strategy!r} cannot join ranks with different numbers of batches; use rt.loader, which "
                "gives all ranks the same number, or strategy 'ddp'"
            )
        yield

    def named_weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Pairs (canonical name, whole weight), one at a time, trainable or not. Collective; do not write to them."""
        for name, parameter in self.module.named_parameters():
            yield strip_wrappers(name), parameter.detach()

    def named_gradients(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Pairs (canonical name, whole gradient over all ranks), of parameters that have one. Collective.

        Between the last `backward` and `step`. fp16 gradients are unscaled first.
        """
        self._unscale()
        for name, parameter in self.module.named_parameters():
            if parameter.grad is not None:
                yield strip_wrappers(name), parameter.grad

    def extra_parts(self) -> dict[str, Any]:
        """What else of this engine a checkpoint holds, each part with a name by which a resume can waive it."""
        mark = StrategyMark(self.strategy, self.precision)
        parts = {"ema": self._averages, "schedule": self.scheduler, "scaler": self._scaler, "strategy": mark}
        return {name: part for name, part in parts.items() if part is not None}

    # What strategies override.

    def _make_optimizer(self, request: SetupRequest) -> torch.optim.Optimizer:
        made = together("making the optimizer", lambda: make_optimizer(request.optimizer, self.module), self.group)
        refuse_optimizer(made, self.strategy, self.gradients_are_sharded, warn=self.group.world.is_main)
        return made

    def _make_scaler(self) -> LossScaler | None:
        return LossScaler(self.group, agree=self.gradients_are_sharded) if self.precision == "fp16" else None

    def _make_averages(self, options: EMA) -> Averages:
        return Averages(options, self._local_weights())

    def _forward(self, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self._dtype is None:
            return call(*args, **kwargs)
        with autocast(self.device, self._dtype):
            output = call(*args, **kwargs)
        return as_float32(output)

    def _backward(self, loss: torch.Tensor) -> None:
        loss.backward()  # type: ignore[no-untyped-call]

    def _update(self) -> bool:
        """One optimizer step; whether the weights changed."""
        if self._scaler is not None:
            return self._scaler.step(self.optimizer)
        self.optimizer.step()
        return True

    def _unscale(self) -> None:
        """Make the gradients those of the loss, where they are scaled."""
        if self._scaler is not None:
            self._scaler.unscale(self.optimizer)

    def _window(self, last: bool) -> AbstractContextManager[Any]:
        """Around forward and backward of one micro-batch; gradients are communicated at the last."""
        return nullcontext()

    def _check_unused(self) -> None:
        """Before the first update: say which parameters got no gradient."""
        warn_of_unused(self._without_gradient(), self.group)

    def _without_gradient(self) -> list[str]:
        named = self.module.named_parameters()
        return [strip_wrappers(name) for name, p in named if p.requires_grad and p.grad is None]

    def _local_weights(self) -> dict[str, torch.Tensor]:
        """What this rank holds of the trainable weights; written to by averages."""
        return {strip_wrappers(name): p.detach() for name, p in self.module.named_parameters() if p.requires_grad}

    def _uneven_calls(self) -> AbstractContextManager[Any]:
        """Lets ranks call the engine a different number of times; see `forward_is_collective`."""
        return nullcontext()

    def _set_requires_grad(self, parameters: list[nn.Parameter], mode: bool) -> None:
        for parameter in parameters:
            parameter.requires_grad_(mode)

    # Private.

    def _next_weight(self) -> float | torch.Tensor:
        return self._batch_weight.value if self._micro_weight is None else self._micro_weight
