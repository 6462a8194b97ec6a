"""The group that torch.distributed holds: a default one for tensors, and a gloo one for messages."""

from __future__ import annotations

import atexit
import itertools
import zlib
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from dist_toolkit.errors import ConfigError
from dist_toolkit.group import Group, Pending, Reduction
from dist_toolkit.guard.monitor import Guard
from dist_toolkit.guard.recorder import Recorder
from dist_toolkit.guard.sockets import Connection, connections, without_port
from dist_toolkit.guard.store import Board, default_store, hosted_here, port_of
from dist_toolkit.world import World

_OPS = {"sum": dist.ReduceOp.SUM, "max": dist.ReduceOp.MAX, "min": dist.ReduceOp.MIN}

_numbers = itertools.count()
"""Of the groups that this process has made, the same on every rank: two in one store do not mix their words."""


class TorchGroup(Group):
    """The group that torch.distributed holds: a default one for tensors, and a gloo one for messages."""

    def __init__(self, world: World, device: torch.device, timeout: timedelta, owns_default: bool) -> None:
        super().__init__(world, device)
        self._owns_default = owns_default
        self._closed = False
        self._recorder: Recorder | None = None
        self._guard: Guard | None = None
        self._timeout = timeout
        self._control: Any = dist.new_group(backend="gloo", timeout=timeout)
        atexit.register(self.close, failed=True)

    @classmethod
    def join(
        cls, world: World, device: torch.device, backend: str, timeout: timedelta, init_method: str | None,
        desync_guard: bool = True,
    ) -> TorchGroup:  # fmt: skip
        """Join the default group where there is none yet, and make the group for messages. Collective."""
        before = connections() if desync_guard else set()
        owns_default = not dist.is_initialized()
        if owns_default:
            dist.init_process_group(
                backend,
                init_method=init_method or "env://",
                rank=world.rank,
                world_size=world.world_size,
                timeout=timeout,
            )  # no device_id: it would start nccl at once, before ranks that share a GPU can be named
        group = cls(world, device, timeout, owns_default)
        if world.world_size > 1 and all(group.all_gather_json(desync_guard)):
            group._start_guard(connections() - before)
        return group

    @property
    def step(self) -> int:
        """The training step, for the desync guard's report."""
        return self._recorder.step if self._recorder is not None else self._step

    @step.setter
    def step(self, value: int) -> None:
        self._step = value
        if self._recorder is not None:
            self._recorder.step = value

    def watched(self, name: str) -> AbstractContextManager[None]:
        """Records the operation, where the guard is on."""
        nothing = super().watched(name)
        return nothing if self._recorder is None else self._recorder.watched(name)

    def unwatched(self) -> AbstractContextManager[None]:
        """Suspends the guard, where it is on."""
        return super().unwatched() if self._recorder is None else self._recorder.unwatched()

    def barrier(self) -> None:
        """Wait for all ranks, over gloo."""
        with self.watched("barrier"):
            dist.barrier(group=self._control)

    def all_gather_bytes(self, data: bytes) -> list[bytes]:
        """Two collectives: the lengths, then the padded bytes."""
        with self.watched("gather of messages"):
            row = torch.frombuffer(bytearray(data), dtype=torch.uint8) if data else torch.empty(0, dtype=torch.uint8)
            return [row.numpy().tobytes() for row in self._gather_rows(row)]

    def broadcast_bytes(self, data: bytes, src: int = 0) -> bytes:
        """Two collectives: the length, then the bytes."""
        with self.watched("broadcast of a message"):
            mine = self.world.rank == src
            header = torch.tensor([len(data), self._signature()])
            expected = int(header[1])
            dist.broadcast(header, src=src, group=self._control)
            self._compare([int(header[1]), expected], "a broadcast")
            if not header[0]:
                return b""
            row = (
                torch.frombuffer(bytearray(data), dtype=torch.uint8)
                if mine
                else torch.empty(int(header[0]), dtype=torch.uint8)
            )
            dist.broadcast(row, src=src, group=self._control)
            return row.numpy().tobytes()

    def all_reduce(self, tensor: torch.Tensor, op: Reduction = "sum") -> torch.Tensor:
        """CPU tensors go over gloo, CUDA tensors over the default group."""
        with self.watched("all_reduce"):
            dist.all_reduce(tensor, op=_OPS[op], group=self._group_of(tensor))
        return tensor

    def start_all_reduce(self, tensor: torch.Tensor, op: Reduction = "sum") -> Pending:
        """An asynchronous all-reduce on the message group."""
        with self.watched("start of an all_reduce"):
            work = dist.all_reduce(tensor, op=_OPS[op], group=self._control, async_op=True)
        return Pending(tensor, work, self.watched("end of an all_reduce"))

    def broadcast(self, tensor: torch.Tensor) -> torch.Tensor:
        """CPU tensors go over gloo, CUDA tensors over the default group."""
        with self.watched("broadcast"):
            dist.broadcast(tensor, src=0, group=self._group_of(tensor))
        return tensor

    def all_gather(self, tensor: torch.Tensor) -> list[torch.Tensor]:
        """Gathers on the tensor's own device."""
        with self.watched("all_gather"):
            return self._gather_rows(tensor.contiguous())

    def side_channel(self) -> Group:
        """Another gloo group, without a guard."""
        return TorchGroup(self.world, torch.device("cpu"), self._timeout, owns_default=False)

    def close(self, failed: bool = False) -> None:
        """Destroy the groups that this object made. After a failure NCCL is aborted: a peer may never answer."""
        if self._closed:
            return
        self._closed = True
        atexit.unregister(self.close)
        guard, self._guard = self._guard, None
        if guard is not None:
            guard.close(failed)
        self._destroy(failed)
        if guard is not None:
            guard.linger()

    def _destroy(self, failed: bool) -> None:
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

    def _start_guard(self, sockets: set[Connection]) -> None:
        store = default_store()
        self._recorder = Recorder()
        self._guard = Guard(
            self._recorder,
            Board(store, f"{self.world.restart_count}-{next(_numbers)}"),
            self.world.rank,
            self.world.world_size,
            without_port(sockets, port_of(store)),
            on_gpu=self.device.type == "cuda",
            kept_store=store if hosted_here(store, self.world.rank) else None,
        )

    def _group_of(self, tensor: torch.Tensor) -> Any:
        return self._control if tensor.device.type == "cpu" else None

    def _signature(self) -> int:
        return 0 if self._recorder is None else self._recorder.signature()

    def _compare(self, signatures: list[int], what: str) -> None:
        if self._guard is not None and len(set(signatures)) > 1:
            self._guard.diverged(what)

    def _gather_rows(self, tensor: torch.Tensor) -> list[torch.Tensor]:
        mine = torch.tensor([tensor.shape[0], self._signature(), _kind(tensor)])
        headers = [torch.zeros_like(mine) for _ in range(self.world.world_size)]
        dist.all_gather(headers, mine, group=self._control)
        sizes, signatures, kinds = zip(*(header.tolist() for header in headers), strict=True)
        self._compare([*signatures], "a gather")
        if len(set(kinds)) > 1:
            tensor = self._adopt_kind(tensor)
        padded = tensor.new_zeros((max(sizes), *tensor.shape[1:]))
        padded[: tensor.shape[0]] = tensor
        rows = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(rows, padded, group=self._group_of(tensor))
        return [row[:size] for row, size in zip(rows, sizes, strict=True)]

    def _adopt_kind(self, tensor: torch.Tensor) -> torch.Tensor:
        """A rank that has nothing (shape [0]) takes the others' type and shape. Collective."""
        told = [str(tensor.dtype).removeprefix("torch."), [*tensor.shape]]
        kinds = self.all_gather_json(told)
        given = {(dtype, *shape[1:]) for dtype, shape in kinds if shape != [0]}
        if len(given) > 1:
            listed = ", ".join(f"rank {rank}: {dtype} {shape}" for rank, (dtype, shape) in enumerate(kinds))
            raise ConfigError(f"tensors to gather may differ in dimension 0 alone, but are {listed}")
        if tensor.shape != (0,) or not given:
            return tensor
        ((dtype, *rest),) = given
        return tensor.new_empty((0, *rest), dtype=getattr(torch, dtype))


def _kind(tensor: torch.Tensor) -> int:
    """A number that tensors share which differ in dimension 0 alone."""
    return zlib.crc32(f"{tensor.dtype} {[*tensor.shape[1:]]}".encode())
