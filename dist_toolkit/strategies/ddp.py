"""torch's DistributedDataParallel: a whole replica a rank, gradients averaged while backward runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.algorithms.join import Join
from torch.nn.parallel import DistributedDataParallel

from dist_toolkit.errors import ConfigError
from dist_toolkit.objects import broadcast_object
from dist_toolkit.strategies.comm_hooks import COMM_HOOKS, install_hook
from dist_toolkit.strategies.engine import Engine
from dist_toolkit.strategies.request import SetupRequest, build_together
from dist_toolkit.strategies.same_model import check_same, describe
from dist_toolkit.strategies.state import strip_wrappers
from dist_toolkit.strategies.strategy import Strategy
from dist_toolkit.strategies.unused import listed
from dist_toolkit.tensors import map_tensors
from dist_toolkit.world import World

_CPU_BUCKET = 25.0


@dataclass(frozen=True)
class DDP(Strategy):
    """Options of torch's DistributedDataParallel; see its documentation.

    Attributes:
        bucket_cap_mb: gradients are reduced in buckets of this size, in MiB, while backward goes on. None: on GPUs
            torch's default (a first bucket of 1 MiB, then 25 MiB); on CPUs 25 MiB from the first on, since there
            reductions use the cores that backward needs, and more of them only cost more.
        static_graph: the same parameters take part in every step, in the same order.
        find_unused_parameters: look in every step for parameters that the loss does not depend on. Without it, such
            parameters are an error at step 1, by name; with it, a warning.
        gradient_as_bucket_view: gradients lie in the buckets, which saves a copy of them.
        comm_hook: `bf16` or `fp16`: reduce gradients in 16 bits; `powersgd`: reduce low-rank factors of them
            (Vogels et al., NeurIPS 2019), lossy, and its error feedback is not in checkpoints.
        powersgd_rank: rank of the factors, at least 1.
        powersgd_start: step from which PowerSGD compresses, at least 2; plain reductions before.
    """

    name = "ddp"

    bucket_cap_mb: float | None = None
    static_graph: bool = False
    find_unused_parameters: bool = False
    gradient_as_bucket_view: bool = True
    comm_hook: str | None = None
    powersgd_rank: int = 1
    powersgd_start: int = 1000

    def __post_init__(self) -> None:
        size = self.bucket_cap_mb
        if size is not None and (not isinstance(size, (int, float)) or size <= 0):
            raise ConfigError(f"DDP(bucket_cap_mb={size!r}) is not a positive number of MiB")
        if self.comm_hook not in (None, *COMM_HOOKS):
            raise ConfigError(f"DDP(comm_hook={self.comm_hook!r}) is unknown; known: {', '.join(COMM_HOOKS)}")
        if self.powersgd_rank < 1 or self.powersgd_start < 2:
            raise ConfigError(
                f"DDP(powersgd_rank={self.powersgd_rank}, powersgd_start={self.powersgd_start}): "
                "the rank is at least 1, the start at least 2"
            )

    def check(self, world: World) -> None:
        """Needs a launcher, even for one rank."""
        if not world.launched and not dist.is_initialized():
            raise ConfigError("strategy 'ddp' needs a process group; start with `dtk launch`, or use strategy 'auto'")

    def torch_options(self, device: torch.device) -> dict[str, Any]:
        """What torch's DistributedDataParallel is given on this device: its keyword arguments."""
        on_cpu = self.bucket_cap_mb is None and device.type == "cpu"
        return {
            "bucket_cap_mb": _CPU_BUCKET if on_cpu else self.bucket_cap_mb,
            "static_graph": self.static_graph,
            "find_unused_parameters": self.find_unused_parameters,
            "gradient_as_bucket_view": self.gradient_as_bucket_view,
        }

    def setup(self, request: SetupRequest) -> Engine:
        """Move the model to the device, give every rank rank 0's weights, and make the optimizer. Collective."""
        device = request.group.device
        module = build_together(request.model, request.group)
        check_same("the model", describe(module), request.group)
        wrapped = DistributedDataParallel(
            module.to(device),
            device_ids=[device.index] if device.type == "cuda" else None,
            **self.torch_options(device),
        )
        if self.comm_hook is not None:
            install_hook(wrapped, self.comm_hook, self.powersgd_rank, self.powersgd_start, request.group)
        return DDPEngine(wrapped, request, self)


class DDPEngine(Engine):
    """An Engine over a DistributedDataParallel module."""

    strategy = "ddp"

    def __init__(self, wrapped: DistributedDataParallel, request: SetupRequest, options: DDP) -> None:
        super().__init__(wrapped.module, request, wrapped)
        self._ddp, self._options = wrapped, options
        self._reached: set[int] = set()
        trained = [parameter for parameter in self.module.parameters() if parameter.requires_grad]
        self._hooks: list[Any] = [
            parameter.register_post_accumulate_grad_hook(self._note)  # type: ignore[no-untyped-call]
            for parameter in trained
        ]

    @contextmanager
    def join(self) -> Iterator[None]:
        """torch's Join: ranks with fewer batches of the script's own shadow the others' reductions. Collective.

        Gradients are averaged over the ranks that still have batches. At the end all ranks take over weights,
        optimizer state, schedule, averages and loss scale of the one that made most steps. Loaders of this package do
        not need it. Inside, no other collective may be called.
        """
        with self.group.unwatched(), Join([self._ddp], divide_by_initial_world_size=False):
            yield
        self._level()

    def _window(self, last: bool) -> AbstractContextManager[Any]:
        if last:
            self._reached.clear()  # what counts at step 1 is the backward pass that communicates
            return nullcontext()
        if self._options.static_graph:
            raise ConfigError(
                "DDP(static_graph=True) cannot accumulate gradients over micro-batches; leave static_graph off"
            )
        return self._ddp.no_sync()

    def _check_unused(self) -> None:
        for hook in self._hooks:
            hook.remove()
        named = [(strip_wrappers(name), p) for name, p in self.module.named_parameters() if p.requires_grad]
        names = [name for name, p in named if id(p) not in self._reached]
        if len(names) == len(named):  # no backward pass, but the script may have set gradients itself
            if len(self._without_gradient()) < len(named):
                return None
            raise ConfigError("there are no gradients: call engine.backward(loss) before engine.step()")
        if not names or self._options.find_unused_parameters or self._options.static_graph:
            return super()._check_unused()
        raise ConfigError(
            f"{len(names)} parameters got no gradient at the first step, and DDP would wait for them: {listed(names)}; "
            "freeze them (requires_grad_(False)), or use strategy=dtk.DDP(find_unused_parameters=True)"
        )

    def _note(self, parameter: torch.Tensor) -> None:
        self._reached.add(id(parameter))

    def _level(self) -> None:
        """Give every rank the state of the one that made most steps. Collective."""
        steps = self.group.all_gather_json(self._steps)
        if len(set(steps)) == 1:
            return
        source = steps.index(max(steps))
        parts: dict[str, Any] = {"optimizer": self.optimizer, **self.extra_parts()}
        mine = {name: part.state_dict() for name, part in parts.items()}
        # through the CPU: a pickled CUDA tensor would come back on the sender's device
        state = broadcast_object(self.group, map_tensors(mine, torch.Tensor.cpu), source)
        if self.group.world.rank != source:
            for name, part in parts.items():
                part.load_state_dict(state[name])
        self._steps = max(steps)

    def _sync_buffers(self) -> None:
        # DDP does the same before the next forward pass: training does not notice, a checkpoint would.
        for buffer in self.module.buffers():
            self.group.broadcast(buffer)
