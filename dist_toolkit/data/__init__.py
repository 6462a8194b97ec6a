"""Data: the global sample order, and loaders that follow it on any number of ranks and workers."""

from dist_toolkit.data.adopt import shard
from dist_toolkit.data.loader import Loader, WorkerOptions, build_loader
from dist_toolkit.data.order import GlobalOrder

__all__ = ["GlobalOrder", "Loader", "WorkerOptions", "build_loader", "shard"]
