"""dist_toolkit: the runtime of dist-toolkit, for training scripts.

`import dist_toolkit as dtk`, then `with dtk.init(seed=0) as rt:`. Names are loaded when they are used, so parts that
need no torch start without it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from dist_toolkit.version import __version__ as __version__

if TYPE_CHECKING:
    from dist_toolkit.batchnorm import sync_batchnorm as sync_batchnorm
    from dist_toolkit.checkpoint import Checkpointer as Checkpointer
    from dist_toolkit.data import GlobalOrder as GlobalOrder
    from dist_toolkit.data import Loader as Loader
    from dist_toolkit.errors import DesyncError as DesyncError
    from dist_toolkit.errors import DistToolkitError as DistToolkitError
    from dist_toolkit.errors import PeerError as PeerError
    from dist_toolkit.errors import Preempted as Preempted
    from dist_toolkit.runtime import Runtime as Runtime
    from dist_toolkit.runtime import init as init
    from dist_toolkit.strategies import EMA as EMA
    from dist_toolkit.strategies import Engine as Engine
    from dist_toolkit.strategies.data_parallel import DataParallel as DataParallel
    from dist_toolkit.strategies.ddp import DDP as DDP
    from dist_toolkit.strategies.deepspeed import DeepSpeed as DeepSpeed
    from dist_toolkit.strategies.fsdp import FSDP as FSDP
    from dist_toolkit.strategies.single import Single as Single
    from dist_toolkit.world import World as World

_HOMES = {
    "Checkpointer": "dist_toolkit.checkpoint",
    "DDP": "dist_toolkit.strategies.ddp",
    "DataParallel": "dist_toolkit.strategies.data_parallel",
    "DeepSpeed": "dist_toolkit.strategies.deepspeed",
    "DesyncError": "dist_toolkit.errors",
    "DistToolkitError": "dist_toolkit.errors",
    "EMA": "dist_toolkit.strategies",
    "Engine": "dist_toolkit.strategies",
    "FSDP": "dist_toolkit.strategies.fsdp",
    "GlobalOrder": "dist_toolkit.data",
    "Loader": "dist_toolkit.data",
    "PeerError": "dist_toolkit.errors",
    "Preempted": "dist_toolkit.errors",
    "Runtime": "dist_toolkit.runtime",
    "Single": "dist_toolkit.strategies.single",
    "World": "dist_toolkit.world",
    "init": "dist_toolkit.runtime",
    "sync_batchnorm": "dist_toolkit.batchnorm",
}

__all__ = [
    "Checkpointer",
    "DDP",
    "DataParallel",
    "DeepSpeed",
    "DesyncError",
    "DistToolkitError",
    "EMA",
    "Engine",
    "FSDP",
    "GlobalOrder",
    "Loader",
    "PeerError",
    "Preempted",
    "Runtime",
    "Single",
    "World",
    "init",
    "sync_batchnorm",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'dist_toolkit' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
