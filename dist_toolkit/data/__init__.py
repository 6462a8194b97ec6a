"""Data: the global sample order, and loaders that follow it on any number of ranks and workers."""

from dist_toolkit.data.adopt import shard
from dist_toolkit.data.build import Choices, Place, build_loader, on_every_rank
from dist_toolkit.data.loader import Loader
from dist_toolkit.data.order import GlobalOrder
from dist_toolkit.data.splitting import Sharded
from dist_toolkit.data.workers import WorkerOptions

__all__ = [
    "Choices", "GlobalOrder", "Loader", "Place", "Sharded", "WorkerOptions", "build_loader", "on_every_rank", "shard",
]  # fmt: skip
