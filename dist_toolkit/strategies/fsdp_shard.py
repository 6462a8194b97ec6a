"""Apply torch's fully_shard to a model, unit by unit, with checkpointed activations and compilation inside of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, MixedPrecisionPolicy, OffloadPolicy, fully_shard
from torch.nn.modules.batchnorm import _NormBase

from dist_toolkit.errors import ConfigError
from dist_toolkit.process_group import Group
from dist_toolkit.strategies.unused import listed


@dataclass(frozen=True)
class Sharding:
    """How the units of one model are sharded.

    Attributes:
        param_dtype: what weights are gathered and computed with in; None: their own type.
        reduce_dtype: what gradients are reduced in; None: the weights' own type.
        reshard_after_forward: True, False or a number of ranks, as torch's; None: all units but the outermost.
        backend: of torch.compile, for each unit; None: no compilation.
    """

    mesh: DeviceMesh
    param_dtype: torch.dtype | None
    reduce_dtype: torch.dtype | None
    cast_forward_inputs: bool
    reshard_after_forward: bool | int | None
    cpu_offload: bool
    recompute: bool
    backend: str | None


def make_mesh(group: Group, replicas: int) -> DeviceMesh:
    """All ranks as `shard`, or as (`replicate`, `shard`) where there is more than one replica. Collective."""
    size = group.world.world_size
    if replicas == 1:
        return init_device_mesh(group.device.type, (size,), mesh_dim_names=("shard",))
    return init_device_mesh(group.device.type, (replicas, size // replicas), mesh_dim_names=("replicate", "shard"))


def check_parameters(model: nn.Module) -> None:
    """Refuse parameters that cannot be sharded; lay others out contiguously.

    Raises:
        ConfigError: names them.
    """
    scalars = [name for name, parameter in model.named_parameters() if parameter.ndim == 0]
    if scalars:
        raise ConfigError(
            f"fsdp cannot shard parameters without a dimension: {listed(scalars)}; "
            "give them the shape [1], or use strategy 'ddp'"
        )
    kinds = {parameter.dtype: name for name, parameter in model.named_parameters() if parameter.requires_grad}
    if len(kinds) > 1:
        found = ", ".join(f"{name} is {dtype}" for dtype, name in kinds.items())
        raise ConfigError(
            f"fsdp gathers weights of one type at a time, and they are of {len(kinds)}: {found}; "
            "call model.float(), and pass precision='bf16' to compute in 16 bits"
        )
    for parameter in model.parameters():
        if not parameter.is_contiguous():
            parameter.data = parameter.data.contiguous()


def apply_fsdp(
    model: nn.Module, units: Sequence[nn.Module], sharding: Sharding, prepare: Callable[[nn.Module], None]
) -> None:
    """Shard the units, inner ones first, then the model; in place. `prepare` is called with each just before.

    Raises:
        ConfigError: there is no unit, and an option is about units.
    """
    if not units and (sharding.recompute or sharding.backend):
        raise ConfigError(
            "FSDP(activation_checkpointing=..., compile=...) apply to the blocks of a model, and wrap= finds none in "
            f"{type(model).__name__}; name their class: FSDP(wrap=('Block',))"
        )
    wide = _kept_wide(model) if sharding.param_dtype is not None else []
    for norm in wide:
        prepare(norm)
        _shard(norm, replace(sharding, param_dtype=None, cast_forward_inputs=False))
    for unit in units:
        if unit not in wide:
            # inner units are in place by now, so the outer one is compiled and recomputed with them
            module = _wrap(unit, sharding)
            _replace(model, unit, module)
            prepare(module)
            _shard(module, sharding)
    prepare(model)
    _shard(model, sharding)


def forget_unreduced(model: nn.Module) -> None:
    """Drop the whole gradients that wait for a reduction; torch has no public way to."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            state: Any = module._get_fsdp_state()
            # older releases of torch have one group, or none
            groups = getattr(state, "_fsdp_param_groups", None) or [getattr(state, "_fsdp_param_group", None)]
            for group in (group for group in groups if group is not None):
                for parameter in group.fsdp_params:
                    parameter.unsharded_accumulated_grad = None
                    if hasattr(parameter, "_unsharded_param"):
                        parameter._unsharded_param.grad = None


def _kept_wide(model: nn.Module) -> list[nn.Module]:
    """Normalisation layers with running statistics: torch computes with fp32 ones in fp32 weights only."""
    norms = [module for module in model.modules() if isinstance(module, _NormBase) and module.track_running_stats]
    return [norm for norm in norms if norm.affine and norm is not model]


def _wrap(unit: nn.Module, sharding: Sharding) -> nn.Module:
    # this order, from the inside: the compiler sees the recomputation, and neither sees the gathering of weights
    module: nn.Module = checkpoint_wrapper(unit) if sharding.recompute else unit
    if sharding.backend is not None:
        compiled: nn.Module = torch.compile(module, backend=sharding.backend)  # type: ignore[assignment]
        return compiled
    return module


def _replace(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if child is old and new is not old:
                parent._modules[name] = new


def _shard(module: nn.Module, sharding: Sharding) -> None:
    fully_shard(
        module,
        mesh=sharding.mesh,
        reshard_after_forward=sharding.reshard_after_forward,
        mp_policy=MixedPrecisionPolicy(
            param_dtype=sharding.param_dtype,
            reduce_dtype=sharding.reduce_dtype,
            cast_forward_inputs=sharding.cast_forward_inputs,
        ),
        offload_policy=CPUOffloadPolicy() if sharding.cpu_offload else OffloadPolicy(),
    )
