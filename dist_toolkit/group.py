"""What the rest of the package sees of the ranks: `Group`, and its twin of one process.

`SoloGroup` has the same methods, so nothing above this file asks whether there is a process group.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch

from dist_toolkit.errors import PeerError
from dist_toolkit.world import World

Reduction = Literal["sum", "max", "min"]


_NOTHING = nullcontext()


class Pending:
    """A reduction under way: `wait()` gives the reduced tensor."""

    def __init__(self, tensor: torch.Tensor, work: Any = None, watch: AbstractContextManager[None] = _NOTHING) -> None:
        self._tensor, self._work, self._watch = tensor, work, watch

    def wait(self) -> torch.Tensor:
        """Block until the reduction has ended; the reduced tensor."""
        if self._work is not None:
            with self._watch:
                self._work.wait()
            self._work = None
        return self._tensor


class Group(ABC):
    """The ranks of this run, as the rest of the package sees them.

    Every method but `close` is collective: every rank must call it, in the same order. Messages are JSON and travel
    over gloo on CPU memory, so they neither unpickle nor wait for a GPU.
    """

    def __init__(self, world: World, device: torch.device) -> None:
        self.world, self.device = world, device
        self.before_collective: Callable[[], None] | None = None
        """Run before any collective that is entered: what must come to its end on all ranks first."""
        self._step = 0

    @property
    def step(self) -> int:
        """The training step, for the desync guard's report; whoever counts steps sets it."""
        return self._step

    @step.setter
    def step(self, value: int) -> None:
        self._step = value

    def watched(self, name: str) -> AbstractContextManager[None]:
        """A context in which this rank is inside the collective operation `name`, for the desync guard.

        Every rank must enter the same names in the same order. Costs microseconds; only the outermost counts. Do not
        hold it open while a user's code runs. Enter it at once: what `before_collective` asks for is done here.
        """
        if self.before_collective is not None:
            self.before_collective()
        return _NOTHING

    def unwatched(self) -> AbstractContextManager[None]:
        """A context in which the ranks may rightly differ (torch's Join): the guard neither records nor waits."""
        return _NOTHING

    @abstractmethod
    def barrier(self) -> None:
        """Wait until every rank is here. Collective."""

    @abstractmethod
    def all_gather_bytes(self, data: bytes) -> list[bytes]:
        """Everyone's bytes, by rank; the lengths may differ. Collective."""

    @abstractmethod
    def broadcast_bytes(self, data: bytes, src: int = 0) -> bytes:
        """The bytes of rank `src`; other ranks' argument is ignored. Collective."""

    def all_gather_json(self, value: Any) -> list[Any]:
        """Everyone's JSON-able `value`, by rank. Collective."""
        return [json.loads(data) for data in self.all_gather_bytes(json.dumps(value).encode())]

    def broadcast_json(self, value: Any) -> Any:
        """Rank 0's JSON-able `value`; other ranks' argument is ignored. Collective."""
        return json.loads(self.broadcast_bytes(json.dumps(value).encode() if self.world.is_main else b""))

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
        """Everyone's tensor, by rank; they may differ in dimension 0 alone. Collective.

        A rank that has nothing may pass `torch.empty(0)`.

        Raises:
            ConfigError: on every rank, if types or other dimensions differ.
        """

    @abstractmethod
    def side_channel(self) -> Group:
        """Another group of the same ranks, for messages and CPU tensors, that a thread may use meanwhile. Collective.

        The desync guard does not see it. Close it before this one.
        """

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

    def all_gather_bytes(self, data: bytes) -> list[bytes]:
        """A list of the one value."""
        return [data]

    def broadcast_bytes(self, data: bytes, src: int = 0) -> bytes:
        """The bytes themselves."""
        return data

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

    def side_channel(self) -> Group:
        """Another group of one."""
        return SoloGroup(self.world, torch.device("cpu"))

    def close(self, failed: bool = False) -> None:
        """Nothing to end."""
