"""A program whose whole state is one number, on ranks that are threads; its storage may be killed at any operation."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dist_toolkit.checkpoint.checkpointer import Checkpointer
from dist_toolkit.checkpoint.parts import StatePart
from dist_toolkit.group import Group, SoloGroup
from dist_toolkit.signals import StopRequest
from dist_toolkit.storage import open_storage
from dist_toolkit.tensors import TensorMeta
from dist_toolkit.world import World
from tests.faults.storage import Fault, FaultyStorage, Killed
from tests.faults.threads import Hub, ThreadGroup

LARGE = 20_000
"""Numbers in a tensor that is written on its own, and not copied together with its neighbours."""


class Numbers:
    """State that all ranks have alike."""

    def __init__(self, size: int) -> None:
        self.tensors = {"large": torch.zeros(size), "small": torch.zeros(3), "other": torch.zeros(2, 2)}
        self.rate = 0.0

    def fill(self, value: float) -> None:
        """Set everything to `value`."""
        for tensor in self.tensors.values():
            tensor.fill_(value)
        self.rate = value

    def state_dict(self) -> dict[str, Any]:
        return {"tensors": self.tensors, "rate": self.rate, "pair": (1, [2.0])}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        assert state["pair"] == (1, [2.0])
        self.tensors, self.rate = dict(state["tensors"]), state["rate"]


class Own:
    """A part that each rank has for itself, as the random generators are."""

    name = "own"

    def __init__(self, rank: int) -> None:
        self.key, self.tensor = f"own.{rank}.tensor", torch.zeros(5)

    def capture(self, step: int) -> tuple[dict[str, torch.Tensor], Any]:
        return {self.key: self.tensor}, {}

    def template(self, saved: Mapping[str, TensorMeta], values: Any) -> dict[str, torch.Tensor]:
        return {self.key: torch.empty(5)} if self.key in saved else {}

    def install(self, tensors: Mapping[str, torch.Tensor], values: Any) -> None:
        self.tensor = tensors.get(self.key, self.tensor)

    def is_fixed(self, key: str) -> bool:
        return False


class Program:
    """One rank of the program."""

    def __init__(self, storage: FaultyStorage, group: Group, size: int = LARGE, **options: Any) -> None:
        self.storage, self.group = storage, group
        self.numbers, self.own = Numbers(size), Own(group.world.rank)
        parts = [StatePart("numbers", self.numbers), self.own]
        self.ckpt = Checkpointer(storage, group, parts, stop=StopRequest(group), **options)

    def fill(self, value: float) -> None:
        """Set the whole state to `value`."""
        self.numbers.fill(value)
        self.own.tensor.fill_(value)

    def save(self, step: int, value: float, **options: Any) -> None:
        """Save `value` as `step`."""
        self.fill(value)
        self.ckpt.save(step, **options)

    def restore(self, step: int | None = None) -> tuple[int, float] | None:
        """(step, the number) of what a restore gives; fails if the state holds different numbers."""
        self.fill(77.0)
        found = self.ckpt.restore(step)
        values = {x for t in (*self.numbers.tensors.values(), self.own.tensor) for x in t.reshape(-1).tolist()}
        values.add(self.numbers.rate)
        assert len(values) == 1, f"a mixture of generations: {sorted(values)}"
        return None if found is None else (found, values.pop())


@dataclass(frozen=True)
class End:
    """How a rank ended: what its body returned, or what it raised."""

    value: Any = None
    error: BaseException | None = None


Body = Callable[[Program], Any]


def run(
    root: Path | str, body: Body, ranks: int = 1, faults: Mapping[int, Fault] | None = None, **options: Any
) -> tuple[list[End], list[FaultyStorage]]:
    """Run `body(program)` on each rank, which ends as a process does; how each ended, and its storage.

    Args:
        root: a directory, or a URL of memory://.
        faults: by rank.
        options: for the checkpointer; `size`, numbers in the large tensor.
    """
    storages = [FaultyStorage(open_storage(root), (faults or {}).get(rank)) for rank in range(ranks)]
    ends = [End() for _ in range(ranks)]
    hub = Hub(ranks)

    def main(rank: int) -> None:
        storages[rank].on_death = hub.end
        group = ThreadGroup(rank, ranks, hub) if ranks > 1 else SoloGroup(World(), torch.device("cpu"))
        program = Program(storages[rank], group, **options)
        try:
            ends[rank] = End(body(program))
            program.ckpt.close()
        except BaseException as error:
            hub.end()
            ends[rank] = End(error=error)
            _close(program)

    if ranks == 1:
        main(0)
    else:
        threads = [threading.Thread(target=main, args=(rank,), name=f"rank {rank}") for rank in range(ranks)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for storage in storages:
        storage.bury()
    return ends, storages


def results(root: Path | str, body: Body, ranks: int = 1, **options: Any) -> list[Any]:
    """What `body(program)` returned on each rank; raises what a rank raised."""
    ends, _ = run(root, body, ranks, **options)
    for end in ends:
        if end.error is not None:
            raise end.error
    return [end.value for end in ends]


def found(root: Path | str, ranks: int = 1, **options: Any) -> tuple[int, float] | None:
    """What a new program restores: (step, number), the same on all ranks."""
    values = results(root, lambda program: program.restore(), ranks, **options)
    assert len(set(values)) == 1, values
    result: tuple[int, float] | None = values[0]
    return result


def _close(program: Program) -> None:
    """As leaving `with dtk.init()` does after an error; a killed program does nothing."""
    try:
        program.ckpt.close(failed=True)
    except Killed:
        return
