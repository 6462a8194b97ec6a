"""What a script asks `rt.setup` for, as a strategy gets it."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch
from torch import nn

from dist_toolkit import seeding
from dist_toolkit.errors import ConfigError
from dist_toolkit.process_group import Group
from dist_toolkit.strategies.ema import EMA
from dist_toolkit.strategies.same_model import together
from dist_toolkit.strategies.unused import listed

_LOG = logging.getLogger("dist_toolkit")

OptimizerFactory = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
SchedulerFactory = Callable[[torch.optim.Optimizer], torch.optim.lr_scheduler.LRScheduler]

PRECISIONS: dict[str, torch.dtype | None] = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
"""What the forward and backward passes compute in; weights and optimizer state are fp32 in all of them."""


class ModelSource:
    """A model, or the function that makes it and the seed that it is made with.

    Attributes:
        factory: the function, or None where a module was given.
        seed: of the random numbers that the model is made with, the same on all ranks.
    """

    def __init__(self, given: nn.Module | Callable[[], nn.Module], device: torch.device, seed: int) -> None:
        if not isinstance(given, nn.Module) and not callable(given):
            raise ConfigError(
                f"the model is a {type(given).__name__}; pass a torch.nn.Module, or a function that makes one"
            )
        self.factory = None if isinstance(given, nn.Module) else given
        self._module = given if isinstance(given, nn.Module) else None
        self._device, self.seed = device, seed

    def build(self, on: str | None = None) -> nn.Module:
        """The model: made where torch makes it, or on device `on` (`meta`: shapes without memory).

        Random numbers depend on the seed alone, so all ranks that build it on one kind of device get the same weights.

        Raises:
            ConfigError: the factory gave something else, or a given module has no parameter to train.
        """
        module = self._module
        if module is None and self.factory is not None:
            with seeding.common_stream(self._device, self.seed):
                if on is None:
                    module = self.factory()
                else:
                    with torch.device(on):
                        module = self.factory()
        if not isinstance(module, nn.Module):
            raise ConfigError(f"the model factory returned a {type(module).__name__}, not a torch.nn.Module")
        if not any(parameter.requires_grad for parameter in module.parameters()):
            raise ConfigError(
                f"{type(module).__name__} has no parameter that requires a gradient: there is nothing to train"
            )
        return module


def build_together(source: ModelSource, group: Group) -> nn.Module:
    """`source.build()`, or a failure on every rank. Collective.

    Raises:
        ConfigError: as `build`, on this rank or another.
        PeerError: it could not be built on another rank.
    """
    return together("building the model", source.build, group)


@dataclass
class BatchWeight:
    """The weights of this rank's parts of the newest training batches: loaders write them, engines read them.

    1.0 where all ranks have as many samples; otherwise samples of this rank * ranks / samples of all ranks, so that the
    average over ranks of weighted mean losses is the mean over all samples.
    """

    value: float = 1.0
    """Of the newest batch; 1.0 where none is in use."""
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=4096))
    _newest: dict[int, float] = field(default_factory=dict)
    _warned: bool = False

    def handed_out(self, loader: int, value: float) -> None:
        """A batch of `loader` (any number that tells it from others) was handed out."""
        self.value = value
        self.recent.append(value)
        self._newest[loader] = value
        if not self._warned and len(set(self._newest.values())) > 1:
            self._warned = True
            _LOG.warning(
                "two training loaders are in use, and their batches are shared unequally: engine.backward takes the "
                "weight of the newest batch; pass engine.backward(loss, weight=loader.weight)"
            )

    def ended(self, loader: int) -> None:
        """No batch of `loader` is in use any more."""
        self._newest.pop(loader, None)
        self.value = 1.0

    def real(self, count: int) -> list[bool]:
        """Of the newest `count` batches: whether each holds samples of this rank, and not a copy of weight 0."""
        known = [value > 0 for value in [*self.recent][-count:]]
        return known if len(known) == count else [True] * count


@dataclass(frozen=True)
class SetupRequest:
    """One call of `rt.setup`, checked.

    Attributes:
        optimizer: a factory, an optimizer, or None where the strategy's own configuration makes it (DeepSpeed).
        precision: a key of PRECISIONS.
        batch_weight: shared with the loaders of the runtime.
    """

    model: ModelSource
    optimizer: OptimizerFactory | torch.optim.Optimizer | None
    group: Group
    scheduler: SchedulerFactory | None = None
    precision: str = "fp32"
    ema: EMA | None = None
    batch_weight: BatchWeight = field(default_factory=BatchWeight)

    def __post_init__(self) -> None:
        if not isinstance(self.precision, str) or self.precision not in PRECISIONS:
            known = ", ".join(map(repr, PRECISIONS))
            raise ConfigError(f"precision={self.precision!r} is unknown; known: {known}")
        if self.scheduler is not None and not callable(self.scheduler):
            raise ConfigError(
                f"scheduler={type(self.scheduler).__name__} is not a function; pass a factory such as "
                "partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=10_000)"
            )
        if self.ema is not None and not isinstance(self.ema, EMA):
            raise ConfigError(f"ema={self.ema!r} is not dtk.EMA(decay=...)")

    @property
    def dtype(self) -> torch.dtype | None:
        """The type of `precision`; None for fp32."""
        return PRECISIONS[self.precision]


def make_optimizer(
    optimizer: OptimizerFactory | torch.optim.Optimizer | None, module: nn.Module
) -> torch.optim.Optimizer:
    """The optimizer of `module`, made by the factory, or the given one.

    Raises:
        ConfigError: nothing to train, not an optimizer, or a given optimizer holds parameters that are not the model's.
    """
    if isinstance(optimizer, torch.optim.Optimizer):
        return _check_parameters(optimizer, module)
    made = optimizer([p for p in module.parameters() if p.requires_grad]) if callable(optimizer) else optimizer
    if not isinstance(made, torch.optim.Optimizer):
        raise ConfigError(
            f"the optimizer is a {type(made).__name__}; pass a factory such as partial(torch.optim.AdamW, lr=3e-4)"
        )
    return _check_parameters(made, module)


def _check_parameters(optimizer: torch.optim.Optimizer, module: nn.Module) -> torch.optim.Optimizer:
    known = {id(parameter) for parameter in module.parameters()}
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    foreign = len(held - known)
    left_out = [name for name, p in module.named_parameters() if p.requires_grad and id(p) not in held]
    if left_out and not foreign:
        raise ConfigError(
            f"the optimizer leaves out {len(left_out)} trainable parameters of {type(module).__name__}: "
            f"{listed(left_out)}; give it all of them, or freeze those with requires_grad_(False)"
        )
    if foreign:
        raise ConfigError(
            f"the optimizer holds {foreign} parameters that are not in {type(module).__name__}; "
            "pass a factory such as partial(torch.optim.AdamW, lr=3e-4)"
        )
    return optimizer


def make_scheduler(
    factory: SchedulerFactory | None, optimizer: torch.optim.Optimizer
) -> torch.optim.lr_scheduler.LRScheduler | None:
    """The learning-rate schedule over `optimizer`, or None.

    Raises:
        ConfigError: it is not a schedule that is stepped once an optimizer step.
    """
    if factory is None:
        return None
    made = factory(optimizer)
    if isinstance(made, torch.optim.lr_scheduler.ReduceLROnPlateau):
        raise ConfigError(
            "ReduceLROnPlateau steps on a metric, not on each optimizer step; make it yourself over engine.optimizer, "
            "step it with a value that is the same on all ranks, and pass it as rt.checkpointer(state={'plateau': ...})"
        )
    if not isinstance(made, torch.optim.lr_scheduler.LRScheduler):
        raise ConfigError(f"the scheduler factory returned a {type(made).__name__}, not an LRScheduler")
    return made
