"""The process-group manager: joining, collectives, small messages, teardown on every exit.

`open_group` gives a `Group`; in a process that no launcher started it is a `SoloGroup`, the one-process twin with the
same methods, so nothing above this file asks whether there is a process group.
"""

from __future__ import annotations

import atexit
import json
import os
import socket
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import Any, Literal

import torch
import torch.distributed as dist

from dist_toolkit.devices import choose_backend
from dist_toolkit.errors import ConfigError, PeerError
from dist_toolkit.world import World

Reduction = Literal["sum", "max", "min"]

_OPS = {"sum": dist.ReduceOp.SUM, "max": dist.ReduceOp.MAX, "min": dist.ReduceOp.MIN}


_NOTHING = nullcontext()


class Pending:
    """A reduction under way: `wait()` gives the reduced tensor."""

    def __init__(self, tensor: torch.Tensor, work: Any = None) -> None:
        self._tensor, self._work = tensor, work

    def wait(self) -> torch.Tensor:
        """Block until the reduction has ended; the reduced tensor."""
        if self._work is not None:
            self._work.wait()
            self._work = None
        return self._tensor


class Group(ABC):
    """The ranks of this run, as the rest of the package sees them.

    Every method but `close` is collective: every rank must call it, in the same order. Messages are JSON and travel
    over gloo on CPU memory, so they neither unpickle nor wait for a GPU.
    """

    step: int = 0
    """The training step, for the desync guard's report; whoever counts steps sets it."""

    def __init__(self, world: World, device: torch.device) -> None:
        self.world, self.device = world, device

    def watched(self, name: str) -> AbstractContextManager[None]:
        """A context in which this rank is inside the collective operation `name`, for the desync guard.

        Every rank must enter the same names in the same order. Costs microseconds; only the outermost counts. Do not
        hold it open while a user's code runs.
        """
        return _NOTHING

    def unwatched(self) -> AbstractContextManager[None]:
        """A context in which the ranks may rightly differ (torch's Join): the guard neither records nor waits."""
        return _NOTHING

    @abstractmethod
    def barrier(self) -> None:
        """Wait until every rank is here. Collective."""

    @abstractmethod
    def all_gather_json(self, value: Any) -> list[Any]:
        """Everyone's JSON-able `value`, by rank. Collective."""

    @abstractmethod
    def broadcast_json(self, value: Any) -> Any:
        """Rank 0's JSON-able `value`; other ranks' argument is ignored. Collective."""

    @abstractmethod
    def all_reduce(self, tensor: torch.Tensor, op: Reduction = "sum") -> torch.Tensor:
        """Reduce `tensor` (any shape, on the device or on CPU) over ranks, in place; returns it. Collective."""

    @abstractmethod
    def start_all_reduce(self, tensor: torch.Tensor, op: Reduction = "sum") -> Pending:
        """Begin to reduce a CPU tensor in the background; other collectives may come before its end. Collective."""

    @abstractmethod
    def broadcast(self, tensor: torch.Tensor) -> torch.Tensor:
        """Overwrite `tensor` with rank 0's, in place; returns it. Collective."""

    @abstractmethod
    def all_gather(self, tensor: torch.Tensor) -> list[torch.Tensor]:
        """Everyone's tensor, by rank; the first dimension may differ in size, the others may not. Collective."""

    @abstractmethod
    def close(self, failed: bool = False) -> None:
        """End the process group. Not collective where `failed`: peers may be gone. Calling it again does nothing."""

    def agree(self, what: str, error: BaseException | str | None) -> None:
        """Raise PeerError on every rank if any rank passes an error. Collective."""
        words = None if error is None else (error if isinstance(error, str) else f"{type(error).__name__}: {error}")
        answers = self.all_gather_json(words)
        failures = {rank: said for rank, said in enumerate(answers) if said is not None}
        if failures:
            cause = error if isinstance(error, BaseException) else None
            raise PeerError(what, failures) from cause


class SoloGroup(Group):
    """The group of one process that no launcher started: every collective is the identity."""

    def barrier(self) -> None:
        """Return at once."""

    def all_gather_json(self, value: Any) -> list[Any]:
        """A list of the one value, as JSON would return it."""
        return [json.loads(json.dumps(value))]

    def broadcast_json(self, value: Any) -> Any:
        """The value, as JSON would return it."""
        return json.loads(json.dumps(value))

    def all_reduce(self, tensor: torch.Tensor, op: Reduction = "sum") -> torch.Tensor:
        """The tensor itself."""
        return tensor

    def start_all_reduce(self, tensor: torch.Tensor, op: Reduction = "sum") -> Pending:
        """A reduction that has already ended."""
        return Pending(tensor)

    def broadcast(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor itself."""
        return tensor

    def all_gather(self, tensor: torch.Tensor) -> list[torch.Tensor]:
        """A list of the one tensor."""
        return [tensor]

    def close(self, failed: bool = False) -> None:
        """Nothing to end."""


class TorchGroup(Group):
    """The group that torch.distributed holds: a default one for tensors, and a gloo one for messages."""

    def __init__(self, world: World, device: torch.device, timeout: timedelta, owns_default: bool) -> None:
        super().__init__(world, device)
        self._owns_default = owns_default
        self._closed = False
        self._control: Any = dist.new_group(backend="gloo", timeout=timeout)
        atexit.register(self.close, failed=True)

    def barrier(self) -> None:
        """Wait for all ranks, over gloo."""
        dist.barrier(group=self._control)

    def all_gather_json(self, value: Any) -> list[Any]:
        """Two collectives: the lengths, then the padded bytes."""
        data = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        return [json.loads(row.numpy().tobytes()) for row in self._gather_rows(data)]

    def broadcast_json(self, value: Any) -> Any:
        """Two collectives: the length, then the bytes."""
        data = (
            torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8) if self.world.is_main else None
        )
        length = torch.tensor([0 if data is None else data.numel()])
        dist.broadcast(length, src=0, group=self._control)
        if data is None:
            data = torch.empty(int(length.item()), dtype=torch.uint8)
        dist.broadcast(data, src=0, group=self._control)
        return json.loads(data.numpy().tobytes())

    def all_reduce(self, tensor: torch.Tensor, op: Reduction = "sum") -> torch.Tensor:
        """CPU tensors go over gloo, CUDA tensors over the default group."""
        dist.all_reduce(tensor, op=_OPS[op], group=self._group_of(tensor))
        return tensor

    def start_all_reduce(self, tensor: torch.Tensor, op: Reduction = "sum") -> Pending:
        """An asynchronous all-reduce on the message group."""
        return Pending(tensor, dist.all_reduce(tensor, op=_OPS[op], group=self._control, async_op=True))

    def broadcast(self, tensor: torch.Tensor) -> torch.Tensor:
        """CPU tensors go over gloo, CUDA tensors over the default group."""
        dist.broadcast(tensor, src=0, group=self._group_of(tensor))
        return tensor

    def all_gather(self, tensor: torch.Tensor) -> list[torch.Tensor]:
        """Gathers on the tensor's own device."""
        return self._gather_rows(tensor.contiguous())

    def close(self, failed: bool = False) -> None:
        """Destroy the groups that this object made. After a failure NCCL is aborted: a peer may never answer."""
        if self._closed:
            return
        self._closed = True
        atexit.unregister(self.close)
        if not dist.is_initialized():
            return
        if self._owns_default:
            abort = getattr(dist.distributed_c10d, "_abort_process_group", None)
            if failed and self.device.type == "cuda" and abort is not None:
                abort()
            else:
                dist.destroy_process_group()
        else:
            dist.destroy_process_group(self._control)

    def _group_of(self, tensor: torch.Tensor) -> Any:
        return self._control if tensor.device.type == "cpu" else None

    def _gather_rows(self, tensor: torch.Tensor) -> list[torch.Tensor]:
        mine = torch.tensor([tensor.shape[0]])
        lengths = [torch.zeros_like(mine) for _ in range(self.world.world_size)]
        dist.all_gather(lengths, mine, group=self._control)
        sizes = [int(length.item()) for length in lengths]
        longest = max(sizes)
        padded = tensor.new_zeros((longest, *tensor.shape[1:]))
        padded[: tensor.shape[0]] = tensor
        rows = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(rows, padded, group=self._group_of(tensor))
        return [row[:size] for row, size in zip(rows, sizes, strict=True)]


def open_group(
    world: World,
    device: torch.device,
    backend: str = "auto",
    timeout: float = 1800.0,
    env: Mapping[str, str] | None = None,
) -> Group:
    """Join the other ranks. Collective.

    An already initialised default group is used and left alone at the end.

    Args:
        backend: one of `devices.BACKENDS`.
        timeout: seconds after which a collective that not all ranks entered fails.
        env: where DTK_INIT_METHOD is looked up (default: the process's); without it torch's `env://`.

    Raises:
        ConfigError: the backend does not fit the device, no rendezvous is set, or two ranks would use one GPU.
    """
    backend = choose_backend(device, backend)
    if timeout <= 0:
        raise ConfigError(f"timeout={timeout} is not a positive number of seconds")
    if not world.launched and not dist.is_initialized():
        return SoloGroup(world, device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    variables = os.environ if env is None else env
    if not dist.is_initialized() and "DTK_INIT_METHOD" not in variables and "MASTER_ADDR" not in variables:
        raise ConfigError(
            "RANK and WORLD_SIZE are set but MASTER_ADDR is not: left over in this shell? unset them, "
            "or start with `dtk launch` or torchrun"
        )
    limit = timedelta(seconds=timeout)
    owns_default = not dist.is_initialized()
    if owns_default:
        dist.init_process_group(
            backend,
            init_method=variables.get("DTK_INIT_METHOD", "env://"),
            rank=world.rank,
            world_size=world.world_size,
            timeout=limit,
        )  # no device_id: it would start nccl at once, before ranks that share a GPU can be named
    group = TorchGroup(world, device, limit, owns_default)
    if device.type == "cuda":
        _refuse_shared_gpus(group, device)
    return group


def _refuse_shared_gpus(group: Group, device: torch.device) -> None:
    uuid = str(getattr(torch.cuda.get_device_properties(device), "uuid", device.index))
    places = group.all_gather_json([socket.gethostname(), uuid])
    owners: dict[tuple[str, str], int] = {}
    for rank, (host, gpu) in enumerate(places):
        first = owners.setdefault((host, gpu), rank)
        if first != rank:
            raise ConfigError(f"ranks {first} and {rank} both use GPU {gpu} of {host}; give each rank a GPU of its own")
