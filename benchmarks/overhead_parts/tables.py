"""What can be compared: the loops, by name. Names of classes, so reading this needs no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LoopSpec:
    """One way to write the same training loop."""

    title: str
    make: str
    """`module:class` of overhead_parts.loops, from (job, feed) to the loop."""
    feeds: tuple[str, ...]
    """Where its batches come from: see FEEDS."""
    needs: str = ""
    """Import name of the library, which may be missing."""
    package: str = ""
    """Name of its distribution."""


FEEDS = {
    "memory": "the batches lie on the device: the cost of a step alone",
    "loader": "each library's own loader over the same data, without workers",
}

LOOPS = {
    "hand": LoopSpec("written by hand, torch's DDP with its defaults", "hand:Hand", ("memory", "loader")),
    "hand-view": LoopSpec(
        "written by hand, DDP with gradient_as_bucket_view=True alone", "hand:HandView", ("memory",)
    ),
    "hand-options": LoopSpec(
        "written by hand, DDP with the options that dist_toolkit sets", "hand:HandOptions", ("memory", "loader")
    ),
    "dtk": LoopSpec("dist_toolkit", "toolkit:Toolkit", ("memory", "loader")),
    "dtk-noguard": LoopSpec("dist_toolkit with desync_guard=False", "toolkit:Unguarded", ("memory",)),
    "dtk-log": LoopSpec("dist_toolkit with rt.log at each step, reduced every 50", "toolkit:Logged", ("memory",)),
    "dtk-steps": LoopSpec("dist_toolkit with rt.loader in ckpt.steps and rt.log", "toolkit:Steps", ("loader",)),
    "fabric": LoopSpec("Lightning Fabric", "fabric:FabricLoop", ("memory", "loader"), "lightning", "lightning"),
    "accelerate": LoopSpec(
        "Accelerate", "accelerated:Accelerated", ("memory", "loader"), "accelerate", "accelerate"
    ),
}  # fmt: skip

BASELINE = "hand"
SAME_OPTIONS = "hand-options"
