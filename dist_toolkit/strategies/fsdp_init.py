"""Initial weights of a sharded model: from rank 0, without a whole copy on every rank; or made where they will be."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn
from torch.distributed.tensor import DTensor, distribute_tensor

from dist_toolkit import seeding
from dist_toolkit.errors import ConfigError
from dist_toolkit.process_group import Group
from dist_toolkit.strategies.request import ModelSource, build_together
from dist_toolkit.strategies.same_model import together
from dist_toolkit.strategies.state import strip_wrappers
from dist_toolkit.strategies.unused import listed

_LOG = logging.getLogger("dist_toolkit")

INITS = ("rank0", "full", "meta")


@dataclass(frozen=True)
class Blueprint:
    """A model that is not sharded yet, and where its weights come from.

    Attributes:
        model: with weights or, on the device `meta`, without.
        values: on rank 0, all parameters and buffers by name; None on other ranks, and where each unit makes its own.
        makes_own: the units make their weights, one after the other, just before they are sharded.
    """

    model: nn.Module
    values: Mapping[str, torch.Tensor] | None
    makes_own: bool = False


def draw(source: ModelSource, init: str, group: Group) -> Blueprint:
    """Build the model as `init` says. Collective.

    Raises:
        ConfigError: there is nothing to train, or a given module and init='meta'.
        PeerError: another rank failed to build it.
    """
    if source.factory is None:
        if init == "meta":
            raise ConfigError("FSDP(init='meta') needs a factory; pass rt.setup(Net, ...), not rt.setup(Net(), ...)")
        return _whole(source, group)
    if init == "full":
        return _whole(source, group)
    model, problem = together("building the model without weights", lambda: _on_meta(source), group)
    problems = [said for said in group.all_gather_json(problem) if said is not None]
    if model is not None and not problems:
        return Blueprint(model, None, makes_own=True) if init == "meta" else _from_rank_0(source, model, group)
    if init == "meta":
        raise ConfigError(f"FSDP(init='meta') cannot build the model without weights: {problems[0]}; use init='rank0'")
    if group.world.is_main:
        _LOG.warning("every rank builds the whole model at first: without weights it cannot be built: %s", problems[0])
    return _whole(source, group)


def place(model: nn.Module, blueprint: Blueprint, weights_on: torch.device, group: Group) -> None:
    """Give the sharded `model` its weights: rank 0's. Collective.

    Args:
        weights_on: the device of the shards; buffers are on the group's.
    """
    if blueprint.makes_own:
        return
    if any(parameter.device.type == "meta" for parameter in model.parameters()):
        model.to_empty(device=weights_on)
    with torch.no_grad():
        # also under their second names: to_empty gives modules that shared a buffer one each
        for name, parameter in model.named_parameters():
            parameter.copy_(_like(parameter, _sent(name, parameter, blueprint, group)))
        for path, module in model.named_modules(remove_duplicate=False):
            for name, buffer in module._buffers.items():
                if buffer is not None:
                    module._buffers[name] = _sent(f"{path}.{name}" if path else name, buffer, blueprint, group)


def make_own(unit: nn.Module, device: torch.device, seed: int) -> None:
    """Put a unit that is on `meta` onto `device`, and let each of its modules reset its parameters.

    The same on all ranks of one kind of device.

    Raises:
        ConfigError: names what got no value: modules without `reset_parameters`.
    """
    empty = [module for module in unit.modules() if any(tensor.is_meta for tensor in _own(module).values())]
    made: dict[torch.Tensor, torch.Tensor] = {}  # a tensor that two modules share stays one
    with torch.no_grad():
        for module in empty:
            _materialise(module, device, made)
        with seeding.common_stream(device, seed):
            for module in reversed(empty):  # inner modules first
                _reset(module)
    unset = [f"{type(m).__name__}.{name}" for m in empty for name, tensor in _own(m).items() if _is_marked(tensor)]
    if unset:
        raise ConfigError(
            f"FSDP(init='meta'): reset_parameters gives these no value: {listed(unset)}; "
            "write one that does, or use init='rank0'"
        )


def _on_meta(source: ModelSource) -> tuple[nn.Module | None, str | None]:
    """The model without weights; or why there is none: a factory that reads values, say."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of values that are loaded into such a model: rank 0 has them
            return source.build(on="meta"), None
    except ConfigError:
        raise
    except Exception as error:
        return None, f"{type(error).__name__}: {error}"


def _whole(source: ModelSource, group: Group) -> Blueprint:
    model = build_together(source, group)
    return Blueprint(model, _values(model) if group.world.is_main else None)


def _from_rank_0(source: ModelSource, empty: nn.Module, group: Group) -> Blueprint:
    if not group.world.is_main:
        together("building the model", lambda: None, group)
        return Blueprint(empty, None)
    return Blueprint(empty, _values(build_together(source, group)))


def _values(model: nn.Module) -> dict[str, torch.Tensor]:
    parameters = {name: p.detach() for name, p in model.named_parameters(remove_duplicate=False)}
    return {**parameters, **dict(model.named_buffers(remove_duplicate=False))}


def _sent(name: str, like: torch.Tensor, blueprint: Blueprint, group: Group) -> torch.Tensor:
    """Rank 0's whole tensor. Collective."""
    if blueprint.values is not None:
        whole = blueprint.values[strip_wrappers(name)].to(group.device).contiguous()
    else:
        whole = torch.empty(like.shape, dtype=like.dtype, device=group.device)
    return group.broadcast(whole)


def _like(parameter: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
    """This rank's part of `whole`."""
    if not isinstance(parameter, DTensor):
        return whole
    return distribute_tensor(whole, parameter.device_mesh, parameter.placements, src_data_rank=None)


def _own(module: nn.Module) -> dict[str, torch.Tensor]:
    tensors = {**module._parameters, **module._buffers}
    return {name: tensor for name, tensor in tensors.items() if tensor is not None and not isinstance(tensor, DTensor)}


def _materialise(module: nn.Module, device: torch.device, made: dict[torch.Tensor, torch.Tensor]) -> None:
    for name, old in _own(module).items():
        if old.is_meta and old not in made:
            new = torch.empty_like(old, device=device)
            _mark(new)
            made[old] = nn.Parameter(new, old.requires_grad) if isinstance(old, nn.Parameter) else new
        if old in made:
            (module._parameters if name in module._parameters else module._buffers)[name] = made[old]  # type: ignore[assignment]


def _reset(module: nn.Module) -> None:
    for name in ("reset_parameters", "_reset_parameters", "init_weights"):
        reset = getattr(module, name, None)
        if callable(reset):
            reset()
            return


def _mark(tensor: torch.Tensor) -> None:
    if tensor.is_floating_point():
        tensor.fill_(torch.nan)
    elif not tensor.is_complex() and tensor.dtype != torch.bool:
        tensor.fill_(torch.iinfo(tensor.dtype).min)


def _is_marked(tensor: torch.Tensor) -> bool:
    if tensor.is_floating_point():
        return bool(tensor.isnan().any())
    if tensor.is_complex() or tensor.dtype == torch.bool:
        return False
    least = torch.iinfo(tensor.dtype).min
    return bool(least != 0 and (tensor == least).any())
