"""A model and its optimizer handed to DeepSpeed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from dist_toolkit.errors import ConfigError
from dist_toolkit.strategies.deepspeed_config import Settings
from dist_toolkit.strategies.deepspeed_load import load_deepspeed, quiet
from dist_toolkit.strategies.optimizers import refuse_optimizer
from dist_toolkit.strategies.request import SetupRequest, make_optimizer
from dist_toolkit.strategies.same_model import check_same, together
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
    """Make DeepSpeed's engine. Collective; the model's weights and buffers become rank 0's.

    Raises:
        ConfigError: this model or optimizer cannot be trained by DeepSpeed, or its configuration is wrong.
    """
    deepspeed = load_deepspeed(request.group.device)
    group = request.group
    made, groups = together("making the optimizer", lambda: _make(module, request, settings), group)
    check_same("the optimizer", {"type": type(made).__name__, "groups": groups}, group)
    for tensor in (*module.parameters(), *module.buffers()):
        group.broadcast(tensor.data)
    try:
        with quiet(), _own_broadcast(deepspeed):
            engine, *_ = deepspeed.initialize(
                model=module,
                optimizer=made,
                model_parameters=[parameter for parameter in module.parameters() if parameter.requires_grad],
                config=settings.config,
                dist_init_required=False,
            )
    except (ValueError, AssertionError, deepspeed.DeepSpeedConfigError) as error:
        raise ConfigError(f"DeepSpeed refuses this model, optimizer or ds_config: {_in_a_line(error)}") from error
    except TypeError as error:
        raise _of_a_section(error, settings.config) from error
    zero = engine.optimizer if settings.stage else None
    if settings.stage == 3:
        share_weights(zero)
    return Started(engine, zero, engine.optimizer if zero is None else zero.optimizer, groups)


def _make(
    module: nn.Module, request: SetupRequest, settings: Settings
) -> tuple[torch.optim.Optimizer | None, list[list[str]]]:
    """The script's optimizer, checked, if it has one; and the names in each parameter group."""
    _check_model(module)
    names = {parameter: strip_wrappers(name) for name, parameter in module.named_parameters()}
    if request.optimizer is None:
        return None, [[name for parameter, name in names.items() if parameter.requires_grad]]
    made: torch.optim.Optimizer = make_optimizer(request.optimizer, module)
    stage = settings.stage
    name = f"DeepSpeed stage {stage}" if stage else "DeepSpeed"
    refuse_optimizer(made, name, sharded=stage > 0, warn=request.group.world.is_main)
    _check_optimizer(made, names, stage)
    return made, [[names[parameter] for parameter in group["params"]] for group in made.param_groups]


def _in_a_line(error: Exception) -> str:
    """What a check of types found wrong, without the explanations that are about the checker."""
    found: Any = getattr(error, "errors", None)
    if not callable(found):
        return str(error)
    return "; ".join(f"{'.'.join(map(str, one['loc']))} is {one['input']!r}: {one['msg']}" for one in found())


def _of_a_section(error: TypeError, config: Mapping[str, Any]) -> Exception:
    """A wrong parameter of what the ds_config has DeepSpeed make, as a ConfigError; any other error as it is."""
    for key in ("optimizer", "scheduler"):
        section = config.get(key)
        if isinstance(section, Mapping):
            wrong = re.search(r"unexpected keyword argument '(\w+)'", str(error))
            params = section.get("params", {})
            if wrong is not None and wrong[1] in params:
                hint = "; did you mean 'lr'?" if wrong[1] == "learning_rate" else ""
                return ConfigError(f"ds_config: {key}.params.{wrong[1]} is unknown to {section.get('type')!r}{hint}")
    return error


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
