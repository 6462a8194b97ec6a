"""Training steps that all ranks take together, where each rank has another number of batches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch

from dist_toolkit.data.feeds import Ready
from dist_toolkit.errors import ConfigError
from dist_toolkit.process_group import Group, Pending


class Local(NamedTuple):
    """What one rank has for a step."""

    batch: Any
    """None where it has nothing."""
    stop: int
    """The loader's position after the step: the same on every rank."""
    samples: int
    """How many are in the batch."""
    alive: int
    """Streams of this rank that may still give something after this step."""


def in_step(local: Iterator[Local], group: Group | None, world_size: int) -> Iterator[Ready]:
    """Batches with their weights, until no rank has anything left. Collective, at every step.

    A rank that has nothing for a step gets its last batch again, with weight 0; a step for which no rank has anything
    is left out. The reduction of a step's counts is under way while the step before it is computed.

    Raises:
        ConfigError: on every rank, where one has had no batch at all by the time another has one.
    """
    last: Any = None
    waiting: tuple[Local, Any, Pending] | None = None
    for found in local:
        last = found.batch if found.samples else last
        facts = torch.tensor([found.samples, found.alive, int(last is None)])
        pending = Pending(facts) if group is None else group.start_all_reduce(facts)
        if waiting is not None:
            step, alive = _conclude(*waiting, world_size)
            if step is not None:
                yield step
            if not alive:
                pending.wait()  # all ranks have begun it, and it is the last one
                return
        waiting = found, last, pending


def _conclude(found: Local, batch: Any, pending: Pending, world_size: int) -> tuple[Ready | None, int]:
    samples, alive, without = pending.wait().tolist()
    if not samples:
        return None, alive
    if without:
        raise ConfigError(
            f"{without} of {world_size} ranks have got no sample when others have: the data set has fewer shards than "
            "there are ranks; use more shards, fewer ranks, or rt.loader(..., sharded=False), which shares out items"
        )
    return Ready(batch, found.stop, found.samples * world_size / samples), alive
