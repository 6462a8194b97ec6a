"""One candidate, measured. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from bench_parts.statistics import Spread

from .candidates import Candidate

ROOM = 0.9
"""Of the memory: what a candidate may use at most."""


@dataclass(frozen=True)
class Measured:
    """One candidate."""

    candidate: Candidate
    seconds: Spread | None
    """Of a step; None where it failed."""
    samples: float | None
    """In a step over all ranks; None where it is not known."""
    memory: int | None
    """Bytes of a rank at most: of the GPU, or of RAM without one."""
    room: int | None
    """Bytes there are for a rank."""
    weights: int
    all_reduce: float | None
    """Seconds to sum the gradients over the ranks, when nothing else is done."""
    failed: str = ""
    """Why there is nothing."""
    out_of_memory: bool = False
    """Whether that is why: it does not fit, which is an answer, too."""
    ranks: int | None = None
    """In the process group; 1 where there was none, None where that is not known."""
    on_gpu: bool = False

    @property
    def is_copies(self) -> bool:
        """Whether its ranks did not train together."""
        return self.ranks is not None and self.ranks < self.candidate.nproc

    @property
    def rate(self) -> float | None:
        """Samples a second, or steps a second where the samples are not known; None of copies, which have no sum."""
        if self.seconds is None or self.is_copies:
            return None
        return (1.0 if self.samples is None else self.samples) / self.seconds.median

    @property
    def is_lost(self) -> bool:
        """Whether it was to be measured, and could not be."""
        return bool(self.failed) and not self.out_of_memory

    @property
    def fits(self) -> bool:
        """Whether memory is left."""
        return self.memory is None or self.room is None or self.memory <= ROOM * self.room
