"""What can be compared: the methods and the states, by name. Names of classes, so reading this needs no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class MethodSpec:
    """One way to save and load the same state."""

    title: str
    make: str
    """`module:class` of checkpoint_parts.methods."""
    remark: str = ""
    """What it does otherwise than the rest, and what was done about it."""
    background: bool = False
    """Whether saving goes on after the call has returned."""
    needs: str = ""
    """Import name of the library, which may be missing."""
    package: str = ""
    """Name of its distribution."""


_SHARE = "Each rank writes and reads its share."
_WHOLE = (
    "Its way for a state that all ranks hold: rank 0 alone writes the whole, and every rank reads the whole, so loads "
    "move as many times the bytes as there are ranks. (For sharded models it calls what `dcp` measures.) It does not "
    "fsync; that of its files and their directory is added here, within the clock."
)

METHODS = {
    "plain": MethodSpec(
        "the bytes alone: one file a rank by writev and fsync, read by preadv into new memory", "plain:Plain",
        f"{_SHARE} No names, no digests.",
    ),
    "dtk": MethodSpec(
        "dist_toolkit: `save(wait=True)`, `restore()`", "toolkit:Toolkit",
        f"{_SHARE} Writes digests, and compares every one when it loads.",
    ),
    "dtk-background": MethodSpec(
        "dist_toolkit: `save(wait=False)`, then `wait()`", "toolkit:InBackground",
        "As `dtk`, from a copy in memory that each save uses again.", background=True,
    ),
    "torch.save": MethodSpec(
        "`torch.save` of each rank's share, and fsync", "pickled:TorchSave",
        f"{_SHARE} (Of a whole state that rank 0 writes, see `fabric`.) It does not fsync; that of the file and its "
        "directory is added here, within the clock. `torch.load` with its defaults: weights_only, no mmap.",
    ),
    "dcp": MethodSpec(
        "`torch.distributed.checkpoint.save` and `load`", "dcp:Dcp",
        f"{_SHARE} FileSystemWriter with its defaults, which fsync files; fsync of the directory is added here, within "
        "the clock. It loads into tensors that were made before, outside the clock, and whose memory was not touched.",
    ),
    "dcp-async": MethodSpec(
        "`torch.distributed.checkpoint.async_save`, then `result()`", "dcp:DcpAsync",
        "As `dcp`, with the defaults of `async_save` and a process group of its own.", background=True,
    ),
    "accelerate": MethodSpec(
        "Accelerate: `save_state`, `load_state`", "accelerated:Accelerated",
        f"{_WHOLE} It copies from the mapped file into the model's weights, whose memory was used before: no new "
        "memory is taken, which the bare files' reading does.", needs="accelerate", package="accelerate",
    ),
    "fabric": MethodSpec(
        "Lightning Fabric: `fabric.save`, `fabric.load`", "fabric:FabricFiles", _WHOLE,
        needs="lightning", package="lightning",
    ),
}  # fmt: skip

BASELINE = "plain"
COPY = "memcpy"
"""Not a method: a copy of the same bytes in memory, with which stalls are compared."""

CASES = {
    "large": "few large tensors",
    "small": "many small tensors",
}
PHASES = ("save", "load", "cold")

_PIECE = 40 * 2**20  # bytes of a large tensor on each rank: fresh memory from the system each time
_SMALL = 20_000  # bytes of a small tensor, over all ranks
_WIDTH = {"large": 2048, "small": 50}  # columns: what torch does for a DTensor grows with the number of its rows


@dataclass(frozen=True)
class Layout:
    """A state of float32 matrices, each split evenly over the ranks by rows."""

    tensors: int
    rows: int
    """Of a tensor on each rank."""
    columns: int
    ranks: int

    @property
    def share(self) -> int:
        """Elements that each rank holds."""
        return self.tensors * self.rows * self.columns

    @property
    def bytes(self) -> int:
        """Of the whole state."""
        return 4 * self.share * self.ranks


def layout_of(case: str, ranks: int, mib: int, tensors: int) -> Layout:
    """The state of a case.

    Args:
        mib: size of the large one.
        tensors: number of the small one's.
    """
    count, piece = tensors, _SMALL // ranks
    if case == "large":
        share = mib * 2**20 // ranks
        count = max(1, round(share / _PIECE))
        piece = share // count
    width = _WIDTH[case]
    return Layout(count, max(1, piece // 4 // width), width, ranks)
