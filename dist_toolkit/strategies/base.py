"""The one shape that every strategy gives a training script."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, ClassVar

import torch
from torch import nn

from dist_toolkit import seeding
from dist_toolkit.errors import ConfigError
from dist_toolkit.process_group import Group
from dist_toolkit.strategies.micro_batches import split_batch
from dist_toolkit.strategies.state import (
    capture_optimizer,
    check_groups,
    compare_tensors,
    install_optimizer,
    optimizer_template,
    strip_wrappers,
)
from dist_toolkit.tensors import TensorMeta
from dist_toolkit.world import World

OptimizerFactory = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


class Engine:
    """A model and its optimizer, ready to train on this rank's share of each global batch.

    This class trains on one process; a strategy overrides what differs.

    Attributes:
        module: the user's model, without any wrapper; read parameters and gradients here.
        optimizer: the optimizer over its parameters.
    """

    strategy = "single"

    def __init__(self, module: nn.Module, optimizer: torch.optim.Optimizer, group: Group) -> None:
        self.module, self.optimizer, self.group = module, optimizer, group
        self._wrapped: Callable[..., Any] = module
        self._loss_weight = 1.0

    @property
    def device(self) -> torch.device:
        """The device that the model is on."""
        return self.group.device

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The model's output. Collective while gradients are recorded; local under `torch.no_grad()`."""
        return (self._wrapped if torch.is_grad_enabled() else self.module)(*args, **kwargs)

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradients of a scalar `loss`, a mean over this rank's samples. Collective; see `accumulate`."""
        (loss if self._loss_weight == 1.0 else loss * self._loss_weight).backward()  # type: ignore[no-untyped-call]

    def step(self) -> None:
        """Update the weights with the gradients, and clear them."""
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def clip_grad_norm(self, max_norm: float) -> torch.Tensor:
        """Scale the gradients so that their global 2-norm is at most `max_norm`; the norm before, a scalar tensor."""
        return torch.nn.utils.clip_grad_norm_(self.module.parameters(), max_norm)

    def accumulate(self, batch: Any, count: int) -> Iterator[Any]:
        """Split this rank's `batch` into `count` micro-batches; ranks communicate at the last one only.

        Tensors are split along dimension 0. Each loss is weighted by its micro-batch's share of the batch, so for a
        loss that is a mean over samples the gradient is that of the whole batch. `step` comes after the loop.

        Raises:
            ConfigError: `count` is not positive, or the batch holds no tensor.
        """
        pieces = split_batch(batch, count)
        try:
            for number, (piece, share) in enumerate(pieces):
                self._loss_weight = share
                with nullcontext() if number == len(pieces) - 1 else self._no_sync():
                    yield piece
        finally:
            self._loss_weight = 1.0

    def train(self, mode: bool = True) -> None:
        """Switch the model between training and evaluation mode."""
        self.module.train(mode)

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Evaluation mode without gradients; afterwards modes and random generators are as before. Collective.

        All ranks evaluate with rank 0's buffers (running statistics of normalisation layers).
        """
        modes = [(module, module.training) for module in self.module.modules()]
        self._sync_buffers()
        with seeding.preserved(self.device), torch.no_grad():
            self.module.eval()
            try:
                yield
            finally:
                for module, training in modes:
                    module.training = training

    def state_dict(self) -> dict[str, Any]:
        """Weights, buffers and optimizer state under canonical names, the same for every strategy. Collective.

        Keys: `model.<name>`, `optim.<name>.<state>`, and the plain values `optim_groups` and `model_extra` (what
        modules give as `get_extra_state`). The tensors are the live ones.
        """
        self._sync_buffers()
        state: dict[str, Any] = {f"model.{name}": tensor for name, tensor in self._model_tensors().items()}
        state["model_extra"] = {name: value for name, value in self._model_state().items() if _is_extra(name)}
        return state | capture_optimizer(self.optimizer, self._names())

    def load_template(self, saved: Mapping[str, TensorMeta], values: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        """New tensors, placed and split like this engine's own, to read a saved state into. Changes nothing.

        Raises:
            StateMismatch: the saved state is not of this model and optimizer.
        """
        live = {f"model.{name}": tensor for name, tensor in self._model_tensors().items()}
        compare_tensors({key: meta for key, meta in saved.items() if key.startswith("model.")}, live, "model")
        check_groups(self.optimizer, self._names(), values["optim_groups"])
        template = {key: torch.empty_like(tensor) for key, tensor in live.items()}
        return template | optimizer_template(self.optimizer, self._names(), saved)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a state: the keys of `state_dict`, tensors as of `load_template`; the optimizer keeps its own."""
        with torch.no_grad():
            for name, tensor in self._model_tensors().items():
                tensor.copy_(state[f"model.{name}"])
        for name, value in state["model_extra"].items():
            self.module.get_submodule(name.rpartition(".")[0]).set_extra_state(value)
        install_optimizer(self.optimizer, self._names(), state)

    def _model_state(self) -> dict[str, Any]:
        return {strip_wrappers(name): value for name, value in self.module.state_dict().items()}

    def _model_tensors(self) -> dict[str, torch.Tensor]:
        return {name: value for name, value in self._model_state().items() if not _is_extra(name)}

    def _names(self) -> dict[torch.Tensor, str]:
        return {parameter: strip_wrappers(name) for name, parameter in self.module.named_parameters()}

    def _no_sync(self) -> AbstractContextManager[Any]:
        return nullcontext()

    def _sync_buffers(self) -> None:
        """Give every rank rank 0's buffers."""


def _is_extra(name: str) -> bool:
    return name.rpartition(".")[2] == "_extra_state"


class Strategy(ABC):
    """How to make an Engine. Subclasses are frozen dataclasses of the strategy's options."""

    name: ClassVar[str]

    @abstractmethod
    def check(self, world: World) -> None:
        """Refuse a world that this strategy cannot run in.

        Raises:
            ConfigError: with what to do instead.
        """

    @abstractmethod
    def setup(self, module: nn.Module, optimizer: OptimizerFactory | torch.optim.Optimizer, group: Group) -> Engine:
        """Place the model and make its optimizer. Collective.

        Raises:
            ConfigError: this model or optimizer cannot be trained this way.
        """


def make_optimizer(optimizer: OptimizerFactory | torch.optim.Optimizer, module: nn.Module) -> torch.optim.Optimizer:
    """The optimizer of `module`, made by the factory, or the given one.

    Raises:
        ConfigError: nothing to train, not an optimizer, or a given optimizer holds parameters that are not the model's.
    """
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    if not parameters:
        raise ConfigError(
            f"{type(module).__name__} has no parameter that requires a gradient: there is nothing to train"
        )
    if not isinstance(optimizer, torch.optim.Optimizer):
        made = optimizer(parameters) if callable(optimizer) else optimizer
        if not isinstance(made, torch.optim.Optimizer):
            raise ConfigError(
                f"the optimizer is a {type(made).__name__}; pass a factory such as partial(torch.optim.AdamW, lr=3e-4)"
            )
        return made
    known = {id(parameter) for parameter in module.parameters()}
    foreign = sum(id(parameter) not in known for group in optimizer.param_groups for parameter in group["params"])
    if foreign:
        raise ConfigError(
            f"the optimizer holds {foreign} parameters that are not in {type(module).__name__}; "
            "pass a factory such as partial(torch.optim.AdamW, lr=3e-4)"
        )
    return optimizer
