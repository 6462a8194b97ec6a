"""What can be said of a script that does not take its strategy from `--strategy`. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from bench_parts.markdown import count

from .measured import Measured

_LOADS_NONE = (
    "it loads none of dist_toolkit, Accelerate, Trainer, Lightning and DeepSpeed, so it trains alike under each, and "
    "the first that was tried stands for all"
)
_COPIES = (
    "made no process group: each trained a copy of its own, which is no way to train faster, so the advice is for one "
    "process"
)
_WHAT_TO_DO = (
    "To have a strategy advised, let it take one: by `dtk.init` and `rt.setup` of dist_toolkit, or by one of the "
    "libraries of docs/other-libraries.md."
)


def once(fitting: Sequence[Measured]) -> list[Measured]:
    """Of what ran alike under each strategy: one process, and of several ranks the strategy that was tried first."""
    several = [each for each in fitting if each.candidate.strategy != "single"]
    return [
        each
        for each in fitting
        if each.candidate.strategy in ("single", several[0].candidate.strategy if several else "single")
    ]


def reasons(ran: Sequence[Measured]) -> list[str]:
    """What was seen, what it means for the advice, and what to do."""
    copies = [each for each in ran if each.is_copies]
    seen = f"its {count(copies[0].candidate.nproc, 'rank')} {_COPIES}" if copies else _LOADS_NONE
    found = [f"**The script does not follow --strategy**: {seen}. {_WHAT_TO_DO}"]
    if all(each.is_copies for each in ran):
        found.insert(0, "**No advice**: nothing was measured in one process; add single to --strategies.")
    return found
