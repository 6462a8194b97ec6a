"""Measurements -> what to take, and why. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bench_parts.markdown import count
from bench_parts.statistics import QUIET, Spread
from bench_parts.words import binary, number

from .candidates import STRATEGIES, Candidate

ROOM = 0.9
"""Of the memory: what a candidate may use at most."""
NEAR = 0.05
"""Of the best rate: candidates within this are as good, if they have another advantage."""
MUCH = 0.3
"""Of a step: an all-reduce that takes more, when nothing hides it, is worth to be thought of."""


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

    @property
    def rate(self) -> float | None:
        """Samples a second, or steps a second where the samples are not known."""
        if self.seconds is None:
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


@dataclass(frozen=True)
class Advice:
    """What to take."""

    best: Measured | None
    """None where nothing ran, or nothing that ran leaves memory."""
    reasons: tuple[str, ...]
    """With the numbers, the most important first."""
    lost: tuple[str, ...] = ()
    """What could not be measured and why, to be said before all else; () where that is nothing."""


def advise(measured: Sequence[Measured], follows: bool, busy: float = 0.0) -> Advice:
    """Which candidate to take, and why.

    Args:
        busy: cores that other programs used meanwhile.
        follows: whether the script takes its strategy from `--strategy`.
    """
    ran = [each for each in measured if each.rate is not None]
    lost = tuple(_lost(measured, len(ran)))
    fitting = [each for each in ran if each.fits]
    if not fitting:
        why = [f"{each.candidate.name}: {each.failed or 'leaves no memory'}" for each in measured]
        return Advice(None, tuple(why), lost if ran else ())
    fastest = max(fitting, key=_rate)
    best = _smallest_batch(fastest, fitting)
    reasons = [_shared(busy), _rates(best, fastest, alone=len(ran) == 1)]
    reasons += _against_one(best, fitting)
    reasons += _alternatives(best, fitting) if follows else [_DEAF]
    reasons += _memory(best)
    reasons += _communication(best)
    reasons += [f"{each.candidate.name} does not fit: {_used(each)}." for each in ran if not each.fits]
    reasons += [f"{each.candidate.name} does not fit: {each.failed}" for each in measured if each.out_of_memory]
    return Advice(best, tuple(reason for reason in reasons if reason), lost)


def _lost(measured: Sequence[Measured], ran: int) -> Iterator[str]:
    """How few are compared, then each reason with those that failed of it."""
    by_reason: dict[str, list[str]] = {}
    for each in measured:
        if each.is_lost:
            by_reason.setdefault(each.failed, []).append(each.candidate.name)
    if by_reason:
        lost = sum(map(len, by_reason.values()))
        what = f"only {ran} are compared" if ran > 1 else "nothing is compared: only one ran"
        yield f"**{lost} of {len(measured)} failed, so {what}.**"
    for why, names in by_reason.items():
        yield f"Failed: {'; '.join(names)}: {why}"


_DEAF = (
    "The script uses none of dist_toolkit, Accelerate, Trainer, Lightning and DeepSpeed, so --strategy changes nothing "
    "in it: what it does itself was measured."
)


def _shared(busy: float) -> str:
    if busy < QUIET:
        return ""
    return (
        f"**Other programs kept {busy:.1f} cores busy meanwhile, so do not rely on the differences below**: measure "
        "again on a quiet machine."
    )


def _rate(each: Measured) -> float:
    assert each.rate is not None
    return each.rate


def _unit(each: Measured) -> str:
    return "steps/s" if each.samples is None else "samples/s"


def _smallest_batch(fastest: Measured, fitting: Sequence[Measured]) -> Measured:
    """Of the fastest strategy, the smallest batch that is nearly as fast, as a large one may learn less."""
    if fastest.candidate.batch is None or fastest.samples is None:
        return fastest
    same = [
        each
        for each in fitting
        if (each.candidate.strategy, each.candidate.nproc) == (fastest.candidate.strategy, fastest.candidate.nproc)
        and _rate(each) >= (1 - NEAR) * _rate(fastest)
    ]
    return min(same, key=lambda each: each.candidate.batch or 0)


def _rates(best: Measured, fastest: Measured, alone: bool) -> str:
    assert best.seconds is not None
    found = f"{best.candidate.name}: {number(_rate(best))} {_unit(best)}, a step takes {_ms(best.seconds)}"
    if best is fastest:
        return f"{found}; nothing else ran." if alone else f"{found}; nothing else that fits is faster."
    return (
        f"{found}. Batch {fastest.candidate.batch} is not even {NEAR:.0%} faster ({number(_rate(fastest))} "
        f"{_unit(fastest)}), and a larger batch learns less from a sample."
    )


def _ms(spread: Spread) -> str:
    return f"{number(1000 * spread.median)} ms ({number(1000 * spread.low)} to {number(1000 * spread.high)})"


def _comparable(best: Measured, others: Sequence[Measured]) -> list[Measured]:
    """Those of the same batch, whose rate means the same."""
    return [
        each
        for each in others
        if each is not best
        and each.candidate.batch == best.candidate.batch
        and (each.samples is None) == (best.samples is None)
    ]


def _against_one(best: Measured, fitting: Sequence[Measured]) -> list[str]:
    for each in _comparable(best, fitting):
        if each.candidate.strategy != "single" and best.candidate.strategy != "single":
            continue
        one, many = (each, best) if each.candidate.strategy == "single" else (best, each)
        if many.candidate.nproc == 1:
            continue
        ratio = _rate(many) / _rate(one)
        ranks = f"{many.candidate.strategy} on {count(many.candidate.nproc, 'rank')}"
        if ratio < 1:
            return [f"One process is faster than {ranks} ({1 / ratio:.2f}x): more ranks do not pay here."]
        return [f"{ranks} has {ratio:.2f}x the rate of one process, {ratio / many.candidate.nproc:.0%} of perfect."]
    return []


def _alternatives(best: Measured, fitting: Sequence[Measured]) -> list[str]:
    lines = []
    for each in sorted(_comparable(best, fitting), key=_rate, reverse=True):
        if each.candidate.strategy == "single" or best.candidate.strategy == "single":
            continue
        ratio = _rate(each) / _rate(best)
        line = f"{STRATEGIES[each.candidate.strategy].title} has {ratio:.2f}x its rate"
        if each.memory and best.memory:
            saved = each.memory / best.memory
            line += f" and {saved:.2f}x its memory"
            if saved < 1 - NEAR:
                line += ": take it if the model or the batch is to grow beyond what fits"
        lines.append(line + ".")
    return lines


def _memory(best: Measured) -> list[str]:
    if best.memory is None or best.room is None:
        return []
    return [f"Memory: {_used(best)}; it grows with the batch, so measure again before you raise that much."]


def _used(each: Measured) -> str:
    assert each.memory is not None
    assert each.room is not None
    return f"a rank used {binary(each.memory)} of {binary(each.room)} at most"


def _communication(best: Measured) -> list[str]:
    if best.all_reduce is None or best.seconds is None:
        return []
    share = best.all_reduce / best.seconds.median
    found = (
        f"Communication: summing {best.weights:,} gradients over the ranks takes {number(1000 * best.all_reduce)} ms "
        f"alone, {share:.0%} of the step, of which the backward pass may hide a part"
    )
    if share > MUCH:
        return [
            f"{found}. That is much: a larger batch or gradient accumulation makes it rarer, "
            "`dtk.DDP(comm_hook='bf16')` halves it."
        ]
    return [found + "."]
