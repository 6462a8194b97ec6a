"""Checkpoints: committed as a whole or not at all, every byte under a digest, no pickle.

`Checkpointer` is loaded when it is used, so that the formats and the tools of this package start without torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dist_toolkit.checkpoint.checkpointer import Checkpointer

__all__ = ["Checkpointer"]


def __getattr__(name: str) -> Any:
    if name != "Checkpointer":
        raise AttributeError(f"module 'dist_toolkit.checkpoint' has no attribute {name!r}")
    from dist_toolkit.checkpoint.checkpointer import Checkpointer

    return Checkpointer
