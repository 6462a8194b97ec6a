"""What is tried: a strategy, a number of ranks, a batch. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

PLACE = "{batch}"
"""Of an argument of the script: here the batch size is put in."""


@dataclass(frozen=True)
class StrategySpec:
    """How `dtk launch` is told."""

    title: str
    options: tuple[str, ...]
    needs: str = ""
    """Import name of a library that may be missing."""


STRATEGIES = {
    "single": StrategySpec("one process", ("--strategy", "single")),
    "ddp": StrategySpec("DDP", ("--strategy", "ddp")),
    "fsdp": StrategySpec("FSDP", ("--strategy", "fsdp")),
    "zero1": StrategySpec("ZeRO-1", ("--strategy", "deepspeed", "--zero-stage", "1"), "deepspeed"),
    "zero2": StrategySpec("ZeRO-2", ("--strategy", "deepspeed", "--zero-stage", "2"), "deepspeed"),
    "zero3": StrategySpec("ZeRO-3", ("--strategy", "deepspeed", "--zero-stage", "3"), "deepspeed"),
}
DEFAULT = "single,ddp,fsdp,zero2"


@dataclass(frozen=True)
class Candidate:
    """One way to run the script."""

    strategy: str
    nproc: int
    batch: int | None
    """In the place of `{batch}`; None where the script has no such place."""

    @property
    def name(self) -> str:
        """As `ddp, 2 ranks, batch 64`."""
        return f"{self.strategy}, {self.extent}"

    @property
    def extent(self) -> str:
        """As `2 ranks, batch 64`."""
        ranks = "1 rank" if self.nproc == 1 else f"{self.nproc} ranks"
        return ranks if self.batch is None else f"{ranks}, batch {self.batch}"


def candidates(strategies: Sequence[str], nproc: int, batches: Sequence[int]) -> list[Candidate]:
    """All to be tried: each batch in turn, so that what is compared is near in time. One process where it is single."""
    return [
        Candidate(strategy, 1 if strategy == "single" else nproc, batch)
        for batch in batches or (None,)
        for strategy in strategies
    ]


def turns(tried: Sequence[Candidate], rounds: int) -> Iterator[tuple[int, Candidate]]:
    """(round, candidate); every other round backwards, so that a machine that gets slower favours none."""
    for number in range(rounds):
        for candidate in tried if number % 2 == 0 else reversed(tried):
            yield number, candidate


def launch_words(candidate: Candidate, device: str, precision: str, name_strategy: bool = True) -> list[str]:
    """The options of `dtk launch` for it."""
    words = ["--nproc", str(candidate.nproc), *(STRATEGIES[candidate.strategy].options if name_strategy else ())]
    words += ["--device", device] if device != "auto" else []
    return words + (["--precision", precision] if precision != "auto" else [])


def script_words(words: Sequence[str], batch: int | None) -> list[str]:
    """The script's arguments, with the batch in its place."""
    return [word if batch is None else word.replace(PLACE, str(batch)) for word in words]
