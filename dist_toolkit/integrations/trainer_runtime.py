"""A runtime over the ranks that Accelerate has joined, for as long as a Trainer trains."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dist_toolkit import seeding
from dist_toolkit.errors import ConfigError
from dist_toolkit.runtime import Runtime, init


@contextmanager
def open_runtime(trainer: Any) -> Iterator[Runtime]:
    """Join, note requests to stop, and at the end give back what was taken; generators stay as they are. Collective.

    Raises:
        ConfigError: the launcher and the Trainer disagree about ranks or devices.
    """
    args = trainer.args
    with seeding.preserved(args.device):
        # without the guard: it knows nothing of the collectives of Accelerate, and would blame the wrong ones
        rt = init(seed=args.seed, device=args.device.type, desync_guard=False)
    with rt:
        if rt.world.world_size != args.world_size:
            raise ConfigError(
                f"the launcher started {rt.world.world_size} ranks, the Trainer counts {args.world_size}; "
                "is the Trainer told to use another device or backend?"
            )
        if rt.device.type == "cuda" and rt.device != args.device:
            raise ConfigError(f"the Trainer computes on {args.device}, but this rank is for {rt.device}")
        rt.stop_requested()  # from here on, signals are noted
        yield rt
