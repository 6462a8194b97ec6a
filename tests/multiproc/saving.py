"""A model whose whole state is one number, saved and restored in the tests of the checkpointer."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

import dist_toolkit as dtk
from dist_toolkit.checkpoint import Checkpointer

MUTATORS = ("open", "write", "fsync", "rename", "mkdir", "unlink", "rmdir")


def tiny() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2), nn.Linear(2, 1))


def fill(engine: dtk.Engine, value: float) -> None:
    """Set every tensor of the model and the optimizer's state to `value`."""
    with torch.no_grad():
        for parameter in engine.module.parameters():
            parameter.grad = torch.ones_like(parameter)
        engine.step()
        for tensor in engine.state_dict().values():
            if isinstance(tensor, torch.Tensor):
                tensor.fill_(value)
    engine.optimizer.param_groups[0]["lr"] = value


def value_of(engine: dtk.Engine) -> float:
    """The one number that every tensor holds; fails if they hold different ones."""
    state = engine.state_dict()
    values = {x for tensor in state.values() if isinstance(tensor, torch.Tensor) for x in tensor.reshape(-1).tolist()}
    values.add(engine.optimizer.param_groups[0]["lr"])
    assert len(values) == 1, f"a mixture of generations: {sorted(values)}"
    return values.pop()


def with_checkpointer(root: str, body: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """Run `body(engine, ckpt, rt, *args)`."""
    with dtk.init(seed=0) as rt:
        engine = rt.setup(tiny, partial(torch.optim.AdamW, lr=0.1))
        return body(engine, rt.checkpointer(root, engine=engine, **options), rt, *args)


def save_values(root: str, pairs: list[tuple[int, float]], options: dict[str, Any] | None = None) -> None:
    """Save each (step, value)."""

    def body(engine: dtk.Engine, ckpt: Checkpointer, rt: dtk.Runtime) -> None:
        for step, value in pairs:
            fill(engine, value)
            ckpt.save(step)

    with_checkpointer(root, body, **(options or {}))


def restored(root: str, options: dict[str, Any] | None = None) -> tuple[int | None, float | None]:
    """(step, value) of what a restore gives."""

    def body(engine: dtk.Engine, ckpt: Checkpointer, rt: dtk.Runtime) -> tuple[int | None, float | None]:
        step = ckpt.restore()
        return step, None if step is None else value_of(engine)

    result: tuple[int | None, float | None] = with_checkpointer(root, body, **(options or {}))
    return result


def restored_each(roots: list[str]) -> list[tuple[int | None, float | None]]:
    """(step, value) of what a restore from each root gives."""
    found = []
    with dtk.init(seed=0) as rt:
        engine = rt.setup(tiny, partial(torch.optim.AdamW, lr=0.1))
        for root in roots:
            fill(engine, 77.0)
            step = rt.checkpointer(root, engine=engine).restore()
            found.append((step, None if step is None else value_of(engine)))
    return found


class Saboteur:
    """Counts the calls that change a filesystem, and at call number `at` kills this process: before it, or half-way."""

    def __init__(self, at: int | None, root: str, half: bool = False) -> None:
        self.at, self.root, self.half, self.count = at, root, half, 0
        self.originals = {name: getattr(os, name) for name in MUTATORS}

    def __enter__(self) -> Saboteur:
        for name in MUTATORS:
            setattr(os, name, partial(self._call, name))
        return self

    def __exit__(self, *exception: object) -> None:
        for name, original in self.originals.items():
            setattr(os, name, original)

    def _call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        original = self.originals[name]
        if name == "open" and not args[1] & os.O_CREAT:
            return original(*args, **kwargs)
        if self.count == self.at:
            if self.half and name == "write":
                original(args[0], memoryview(args[1])[: len(args[1]) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        self.count += 1
        return original(*args, **kwargs)


def save_with_saboteur(
    root: str, first: tuple[int, float], second: tuple[int, float], rank: int, at: int | None, half: bool
) -> int:
    """Save `first`, then `second` with a saboteur on `rank`; the number of calls that it counted."""

    def body(engine: dtk.Engine, ckpt: Checkpointer, rt: dtk.Runtime) -> int:
        fill(engine, first[1])
        ckpt.save(first[0])
        fill(engine, second[1])
        with Saboteur(at if rt.world.rank == rank else None, root, half) as saboteur:
            ckpt.save(second[0])
        return saboteur.count

    Path(root).mkdir(parents=True, exist_ok=True)
    count: int = with_checkpointer(root, body, keep_last=1)
    return count
