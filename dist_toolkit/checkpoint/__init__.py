"""Checkpoints: committed as a whole or not at all, every byte under a digest, no pickle."""

from dist_toolkit.checkpoint.checkpointer import Checkpointer

__all__ = ["Checkpointer"]
