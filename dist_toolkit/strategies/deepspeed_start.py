"""A model and its optimizer handed to DeepSpeed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from dist_toolkit.errors import ConfigError
from dist_toolkit.strategies.deepspeed_config import Settings
from dist_toolkit.strategies.deepspeed_load import load_deepspeed, quiet
from dist_toolkit.strategies.request import SetupRequest, make_optimizer
from dist_toolkit.strategies.state import strip_wrappers
from dist_toolkit.strategies.unused import listed


@dataclass(frozen=True)
class Started:
    """What DeepSpeed made.

    Attributes:
        engine: its engine.
        zero: its optimizer around ours; None at stage 0.
        optimizer: ours, whose parameter groups hold the rates; at stages 1 to 3 its parameters are DeepSpeed's.
        groups: the names of the parameters in each group.
    """

    engine: Any
    zero: Any
    optimizer: torch.optim.Optimizer
    groups: list[list[str]]


def start(module: nn.Module, request: SetupRequest, settings: Settings) -> Started:
    """Make DeepSpeed's engine. Collective; the model's weights become rank 0's.

    Raises:
        ConfigError: this model or optimizer cannot be trained by DeepSpeed, or its configuration is wrong.
    """
    deepspeed = load_deepspeed(request.group.device)
    _check_model(module)
    names = {parameter: strip_wrappers(name) for name, parameter in module.named_parameters()}
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    made = None if request.optimizer is None else make_optimizer(request.optimizer, module)
    groups = [[names[parameter] for parameter in trained]]
    if made is not None:
        _check_optimizer(made, names, settings.stage)
        groups = [[names[parameter] for parameter in group["params"]] for group in made.param_groups]
    for tensor in module.parameters():
        request.group.broadcast(tensor.data)
    try:
        with quiet(), _own_broadcast(deepspeed):
            engine, *_ = deepspeed.initialize(
                model=module,
                optimizer=made,
                model_parameters=trained,
                config=settings.config,
                dist_init_required=False,
            )
    except (ValueError, AssertionError, deepspeed.DeepSpeedConfigError) as error:
        raise ConfigError(f"DeepSpeed refuses this model, optimizer or ds_config: {error}") from error
    zero = engine.optimizer if settings.stage else None
    if settings.stage == 3:
        share_weights(zero)
    return Started(engine, zero, engine.optimizer if zero is None else zero.optimizer, groups)


@contextmanager
def _own_broadcast(deepspeed: Any) -> Iterator[None]:
    """Without DeepSpeed's own broadcasts of weights, which cannot send a parameter without dimensions."""
    engine, init = deepspeed.DeepSpeedEngine, deepspeed.zero.Init
    theirs = engine._broadcast_model, init._zero_init_param

    def partition(self: Any, parameter: Any) -> None:
        self._convert_to_deepspeed_param(parameter)
        parameter.partition()

    engine._broadcast_model = lambda self: None
    init._zero_init_param = partition
    try:
        yield
    finally:
        engine._broadcast_model, init._zero_init_param = theirs


def share_weights(zero: Any) -> None:
    """Stage 3: let the weights that are updated be those that are gathered, where both are fp32 on one device.

    DeepSpeed means to do so, but compares a device with a name, and keeps two copies.
    """
    for updated, gathered in zip(zero.fp32_partitioned_groups_flat, zero.fp16_partitioned_groups_flat, strict=True):
        if gathered is not None and updated.dtype == gathered.dtype and updated.device == gathered.device:
            updated.data = gathered.data


def _check_model(module: nn.Module) -> None:
    for name, parameter in module.named_parameters():
        if parameter.requires_grad and parameter.dtype != torch.float32:
            raise ConfigError(
                f"strategy 'deepspeed' keeps trained weights in fp32, but {name} is {parameter.dtype}; "
                "convert the model with .float(), and pass precision='bf16' or 'fp16' to compute in 16 bits"
            )


def _check_optimizer(optimizer: torch.optim.Optimizer, names: dict[nn.Parameter, str], stage: int) -> None:
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    missing = [name for parameter, name in names.items() if parameter.requires_grad and id(parameter) not in held]
    if missing:
        raise ConfigError(
            f"{len(missing)} parameters require a gradient but are not in the optimizer: {listed(missing)}; "
            "freeze them (requires_grad_(False)), or give them to the optimizer"
        )
    adagrad = isinstance(optimizer, torch.optim.Adagrad)
    if stage and adagrad and len(optimizer.param_groups) > 1:
        raise ConfigError("DeepSpeed makes Adagrad anew, with one parameter group; use one group, or stage 0")
    if stage and optimizer.state and not adagrad:
        raise ConfigError(
            "the optimizer has been stepped already, and ZeRO would lose its state; pass a factory such as "
            "partial(torch.optim.AdamW, lr=3e-4), and restore a checkpoint"
        )
    if stage and isinstance(optimizer, torch.optim.LBFGS):
        raise ConfigError(
            "LBFGS evaluates the loss several times a step, which ZeRO cannot; use stage 0 or strategy 'ddp'"
        )
