"""torch's fully_shard (FSDP2): weights, gradients and optimizer state are split over ranks."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from dist_toolkit import seeding
from dist_toolkit.errors import ConfigError
from dist_toolkit.process_group import Group
from dist_toolkit.strategies import fsdp_init
from dist_toolkit.strategies.engine import Engine
from dist_toolkit.strategies.fsdp_options import REDUCE_TYPES, check_options
from dist_toolkit.strategies.fsdp_shard import Sharding, apply_fsdp, check_parameters, forget_unreduced, make_mesh
from dist_toolkit.strategies.fsdp_wrap import Wrap, find_units
from dist_toolkit.strategies.optimizers import refuse_sparse_gradients
from dist_toolkit.strategies.request import SetupRequest
from dist_toolkit.strategies.same_model import check_same, describe
from dist_toolkit.strategies.sharded import ShardedEngine
from dist_toolkit.strategies.state import strip_wrappers
from dist_toolkit.strategies.strategy import Strategy
from dist_toolkit.strategies.unused import listed, warn_of_unused
from dist_toolkit.tensors import map_tensors
from dist_toolkit.world import World


@dataclass(frozen=True)
class FSDP(Strategy):
    """Options of torch's fully_shard; see its documentation.

    Attributes:
        wrap: which modules are gathered as one. `auto`: the repeated blocks of the model; or their classes, or the
            names of the classes; or the least number of parameters of one.
        replicas: whole copies of the weights, each split over ranks / replicas neighbouring ranks (hybrid sharding).
        reshard_after_forward: free the gathered weights after forward and gather them again for backward (True), keep
            them (False), or keep them split over this many ranks; None: True, but for the outermost module.
        reduce_dtype: what gradients are reduced in, `fp32`, `bf16` or `fp16`; None: fp32.
        reduce_once: in `engine.accumulate`, reduce gradients at the last micro-batch only, which keeps whole
            gradients until then; False: at each, which keeps only this rank's part.
        find_unused_parameters: gradients of parameters that the loss does not depend on are zeros instead of none.
            Needed where ranks use different parameters: without it, that is an error at step 1, but where it
            begins later it is not noticed, and gradients of one parameter are added to those of another.
        cast_forward_inputs: with 16-bit precision, also cast what is passed to each wrapped module.
        cpu_offload: keep weights, gradients and optimizer state in the memory of the CPU; needs a GPU.
        activation_checkpointing: keep only the inputs of each wrapped module, and compute the rest again in backward.
        compile: torch.compile each wrapped module: True (inductor), or the name of a backend.
        init: how a model factory is called. `rank0`: rank 0 makes the whole model, the others its shapes, and the
            weights are sent one by one: those of one process (the factory is called twice on rank 0). `full`: every
            rank makes the whole. `meta`: no rank does; each module's `reset_parameters` fills it as it is split:
            other random numbers than the others', the same for any number of ranks.
    """

    name = "fsdp"

    wrap: Wrap = "auto"
    replicas: int = 1
    reshard_after_forward: bool | int | None = None
    reduce_dtype: str | None = None
    reduce_once: bool = True
    find_unused_parameters: bool = False
    cast_forward_inputs: bool = True
    cpu_offload: bool = False
    activation_checkpointing: bool = False
    compile: bool | str = False
    init: str = "rank0"

    def __post_init__(self) -> None:
        check_options(self)

    def check(self, world: World) -> None:
        """Needs a launcher, even for one rank, and numbers that divide the ranks."""
        if not world.launched and not dist.is_initialized():
            raise ConfigError("strategy 'fsdp' needs a process group; start with `dtk launch`, or use strategy 'auto'")
        size = world.world_size
        if size % self.replicas:
            raise ConfigError(
                f"FSDP(replicas={self.replicas}) does not divide the {size} ranks; a good number is that of the nodes"
            )
        kept = self.reshard_after_forward
        if kept is not None and not isinstance(kept, bool) and (kept < 1 or (size // self.replicas) % kept):
            raise ConfigError(
                f"FSDP(reshard_after_forward={kept}) does not divide the {size // self.replicas} ranks that share "
                "the weights; a good number is that of the GPUs of a node"
            )

    def setup(self, request: SetupRequest) -> Engine:
        """Split the model over the ranks, give it rank 0's weights, and make the optimizer. Collective."""
        group = request.group
        self._refuse(request)
        blueprint = fsdp_init.draw(request.model, self.init, group)
        model = blueprint.model
        check_same("the model", describe(model), group)
        check_parameters(model)
        refuse_sparse_gradients(model, "fsdp")
        units = find_units(model, self.wrap)
        mesh = make_mesh(group, self.replicas)
        weights_on = torch.device("cpu") if self.cpu_offload else group.device
        made = 0

        def prepare(unit: nn.Module) -> None:
            nonlocal made
            made += 1
            if blueprint.makes_own:
                fsdp_init.make_own(unit, group.device, seeding.derive(request.model.seed, "unit", made))

        apply_fsdp(model, units, self._sharding(mesh, request.dtype), prepare)
        fsdp_init.place(model, blueprint, weights_on, group)
        return FSDPEngine(model, request, self, mesh)

    def _refuse(self, request: SetupRequest) -> None:
        if isinstance(request.optimizer, torch.optim.Optimizer):
            raise ConfigError(
                "fsdp splits the parameters before an optimizer can hold them; "
                "pass a factory such as partial(torch.optim.AdamW, lr=3e-4)"
            )
        if self.find_unused_parameters and not hasattr(FSDPModule, "set_reduce_scatter_unused_params"):
            raise ConfigError(
                f"FSDP(find_unused_parameters=True) is not in torch {torch.__version__}; take a newer one"
            )
        if self.cpu_offload and request.group.device.type == "cpu":
            raise ConfigError("FSDP(cpu_offload=True) needs a GPU: the weights are in the CPU's memory already")
        if self.cpu_offload and request.precision == "fp16":
            raise ConfigError("FSDP(cpu_offload=True) does not go with precision='fp16'; use bf16")

    def _sharding(self, mesh: DeviceMesh, dtype: torch.dtype | None) -> Sharding:
        narrow = torch.float32 if dtype is not None else None
        return Sharding(
            mesh=mesh,
            param_dtype=dtype,
            reduce_dtype=narrow if self.reduce_dtype is None else REDUCE_TYPES[self.reduce_dtype],
            cast_forward_inputs=self.cast_forward_inputs,
            reshard_after_forward=self.reshard_after_forward,
            cpu_offload=self.cpu_offload,
            recompute=self.activation_checkpointing,
            backend="inductor" if self.compile is True else self.compile or None,
        )


class FSDPEngine(ShardedEngine):
    """An Engine over a module to which fully_shard was applied."""

    strategy = "fsdp"

    def __init__(self, module: nn.Module, request: SetupRequest, options: FSDP, mesh: DeviceMesh) -> None:
        super().__init__(module, request)
        self._options, self._mesh = options, mesh
        self._unreduced = False
        if options.find_unused_parameters and isinstance(module, FSDPModule):
            module.set_reduce_scatter_unused_params(True)
        # _forward sees to it for the outermost module
        name = re.escape(type(module).__name__)
        warnings.filterwarnings("ignore", message=rf"FSDP2-wrapped module \({name}\) returned a view tensor")

    def step(self) -> bool:
        """See Engine.step."""
        self._reshard()
        return super().step()

    def zero_grad(self) -> None:
        """See Engine.zero_grad: also the whole gradients of an `accumulate` that was left early."""
        super().zero_grad()
        if self._unreduced:
            forget_unreduced(self.module)
            self._unreduced = False

    def clip_grad_norm(self, max_norm: float) -> torch.Tensor:
        """See Engine.clip_grad_norm: one reduction of the norm of this rank's part."""
        self._reshard()
        self._unscale()
        local = [_local(p.grad) for p in self.module.parameters() if p.grad is not None]
        with self.group.watched("engine clip"):
            norm = _global_norm(local, self._mesh, self.group)
        if local:
            factor = (max_norm / (norm + 1e-6)).clamp(max=1.0)  # as torch.nn.utils.clip_grad_norm_
            torch._foreach_mul_(local, factor.to(local[0].device))
        return norm

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """See Engine.averaged."""
        self._reshard()
        with super().averaged():
            try:
                yield
            finally:
                self._reshard()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """See Engine.frozen."""
        self._reshard()
        with super().frozen():
            try:
                yield
            finally:
                self._reshard()

    def named_weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        """See Engine.named_weights: each is gathered as it is asked for."""
        self._reshard()
        for name, parameter in list(self.module.named_parameters()):
            yield strip_wrappers(name), self._full(parameter.detach())

    def named_gradients(self) -> Iterator[tuple[str, torch.Tensor]]:
        """See Engine.named_gradients: each is gathered as it is asked for."""
        self._reshard()
        self._unscale()
        for name, parameter in list(self.module.named_parameters()):
            if parameter.grad is not None:
                yield strip_wrappers(name), self._full(parameter.grad)

    def _forward(self, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        output = super()._forward(call, args, kwargs)
        # fully_shard's hook on a view is lost when a script changes the view in place, and gradients with it
        return map_tensors(
            output, lambda tensor: tensor.clone() if tensor.requires_grad and tensor._is_view() else tensor
        )

    @contextmanager
    def _window(self, last: bool) -> Iterator[None]:
        if last or not self._options.reduce_once:
            yield
            self._unreduced = False
            return
        self._unreduced = True
        self._set_sync(False)
        try:
            yield
        finally:
            self._set_sync(True)

    def _check_unused(self) -> None:
        if self._options.find_unused_parameters:
            return
        unused = self._without_gradient()
        everyone = self.group.all_gather_json(unused)
        differing = sorted({name for names in everyone for name in names} - set.intersection(*map(set, everyone)))
        if differing:
            raise ConfigError(
                "gradients of different parameters were added up, because ranks used different ones at the first step: "
                f"{listed(differing)}; use strategy=dtk.FSDP(find_unused_parameters=True)"
            )
        warn_of_unused(unused, self.group)

    def _set_sync(self, mode: bool) -> None:
        if isinstance(self.module, FSDPModule):
            self.module.set_requires_gradient_sync(mode)

    def _reshard(self) -> None:
        """Have the module hold its sharded parameters: after a forward pass, the outermost ones are still whole."""
        for module in self.module.modules():
            if isinstance(module, FSDPModule):
                module.reshard()

    def _full(self, tensor: torch.Tensor) -> torch.Tensor:
        if not isinstance(tensor, DTensor):
            return tensor
        with self.group.watched("engine gather"):
            return tensor.full_tensor()

    def _sync_buffers(self) -> None:
        for buffer in self.module.buffers():
            self.group.broadcast(buffer)

    def _model_state(self) -> dict[str, object]:
        self._reshard()
        return super()._model_state()

    def _names(self) -> dict[torch.Tensor, str]:
        self._reshard()
        return super()._names()


def _local(gradient: torch.Tensor) -> torch.Tensor:
    return gradient.to_local() if isinstance(gradient, DTensor) else gradient


def _global_norm(local: list[torch.Tensor], mesh: DeviceMesh, group: Group) -> torch.Tensor:
    """The 2-norm of gradients of which this rank has the part `local`. Collective.

    Replicas hold the same parts, so only the ranks of one share the sum; their sums are equal.
    """
    squares = torch.zeros((), device=group.device)
    if local:
        norms = torch.stack(torch._foreach_norm(local, dtype=torch.promote_types(local[0].dtype, torch.float32)))
        squares = torch.linalg.vector_norm(norms).square().to(group.device)
    dist.all_reduce(squares, group=mesh.get_group("shard"))
    return squares.sqrt()
