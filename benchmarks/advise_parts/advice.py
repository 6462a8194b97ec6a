"""Measurements -> what to take, and why. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bench_parts.markdown import count
from bench_parts.spreads import quartiles
from bench_parts.statistics import QUIET, Spread
from bench_parts.words import binary, number

from . import deaf
from .candidates import STRATEGIES
from .measured import Measured

NEAR = 0.05
"""Of the best rate: candidates within this are as good, if they have another advantage."""
MUCH = 0.3
"""Of a step: an all-reduce that takes more, when nothing hides it, is worth to be thought of."""
_HALVED = {
    True: "`dtk.DDP(comm_hook='bf16')`",
    False: "under DDP `register_comm_hook` with torch's `bf16_compress_hook`",
}
"""What sends gradients in 16 bits, by whether the script takes its strategy from `--strategy`."""


@dataclass(frozen=True)
class Advice:
    """What to take."""

    best: Measured | None
    """None where nothing ran, or nothing that ran leaves memory."""
    reasons: tuple[str, ...]
    """With the numbers, the most important first."""
    lost: tuple[str, ...] = ()
    """What could not be measured and why, to be said before all else; () where that is nothing."""


def advise(measured: Sequence[Measured], follows: bool, busy: float = 0.0, unseen: int = 0) -> Advice:
    """Which candidate to take, and why.

    Args:
        busy: cores that other programs used meanwhile.
        follows: whether the script takes its strategy from `--strategy`.
        unseen: candidates that an interrupted run did not come to.
    """
    ran = [each for each in measured if each.seconds is not None]
    lost = (*_unseen(unseen, len(measured), len(ran)), *_lost(measured, len(ran)))
    fitting = [each for each in ran if each.fits and not each.is_copies]
    about = [_shared(busy)] if any(not each.is_copies for each in ran) else []
    if not follows:
        about += deaf.reasons(ran)
        fitting = deaf.once(fitting)
    if not fitting:
        why = [f"{each.candidate.name}: {each.failed or 'leaves no memory'}" for each in measured if not each.is_copies]
        return Advice(None, tuple(reason for reason in [*about, *why] if reason), lost if ran else ())
    fastest = max(fitting, key=_rate)
    best = _smallest_batch(fastest, fitting)
    reasons = [*about, _rates(best, fastest, len(ran), len(fitting), follows)]
    reasons += _against_one(best, fitting, follows)
    reasons += _alternatives(best, fitting) if follows else []
    reasons += _memory(best)
    reasons += _communication(best, follows)
    reasons += [
        f"{each.candidate.name} does not fit: {_used(each)}." for each in ran if not (each.fits or each.is_copies)
    ]
    reasons += [f"{each.candidate.name} does not fit: {each.failed}" for each in measured if each.out_of_memory]
    return Advice(best, tuple(reason for reason in reasons if reason), lost)


def _unseen(unseen: int, tried: int, ran: int) -> Iterator[str]:
    if unseen:
        what = f"only {ran} are compared" if ran > 1 else "nothing is compared"
        yield f"**{unseen} of {unseen + tried} were not measured, so {what}.**"


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


def _rates(best: Measured, fastest: Measured, ran: int, compared: int, follows: bool) -> str:
    assert best.seconds is not None
    name = best.candidate.name if follows else best.candidate.extent
    found = f"{name}: {number(_rate(best))} {_unit(best)}, a step takes {_ms(best.seconds)}"
    if best is fastest:
        if ran == 1:
            return f"{found}; nothing else ran."
        return f"{found}; nothing else that fits is faster." if compared > 1 or follows else f"{found}."
    return (
        f"{found}. Batch {fastest.candidate.batch} is not even {NEAR:.0%} faster ({number(_rate(fastest))} "
        f"{_unit(fastest)}), and a larger batch learns less from a sample."
    )


def _ms(spread: Spread) -> str:
    return f"{number(1000 * spread.median)} ms ({quartiles(spread, lambda s: number(1000 * s), 'step')})"


def _comparable(best: Measured, others: Sequence[Measured]) -> list[Measured]:
    """Those of the same batch, whose rate means the same."""
    return [
        each
        for each in others
        if each is not best
        and each.candidate.batch == best.candidate.batch
        and (each.samples is None) == (best.samples is None)
    ]


def _against_one(best: Measured, fitting: Sequence[Measured], follows: bool) -> list[str]:
    for each in _comparable(best, fitting):
        if each.candidate.strategy != "single" and best.candidate.strategy != "single":
            continue
        one, many = (each, best) if each.candidate.strategy == "single" else (best, each)
        if many.candidate.nproc == 1:
            continue
        ratio = _rate(many) / _rate(one)
        what = many.candidate.strategy if follows else "the script"
        ranks = f"{what} on {count(many.candidate.nproc, 'rank')}"
        if ratio < 1:
            return [f"One process is faster than {ranks} ({1 / ratio:.2f}x): more ranks do not pay here."]
        perfect = f"{ratio / many.candidate.nproc:.0%} of perfect" if many.on_gpu else "which had all the cores"
        return [f"{ranks} has {ratio:.2f}x the rate of one process, {perfect}."]
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
    return [f"Memory: {_used(best)}. A larger batch or longer samples may need more: measure before you raise them."]


def _used(each: Measured) -> str:
    assert each.memory is not None
    assert each.room is not None
    return f"a rank used {binary(each.memory)} of {binary(each.room)} at most"


def _communication(best: Measured, follows: bool) -> list[str]:
    if best.all_reduce is None or best.seconds is None:
        return []
    share = best.all_reduce / best.seconds.median
    found = (
        f"Communication: summing {best.weights:,} gradients over the ranks takes {number(1000 * best.all_reduce)} ms "
        f"alone, {share:.0%} of the step, of which the backward pass may hide a part"
    )
    if share <= MUCH:
        return [found + "."]
    halved = f", {_HALVED[follows]} halves it" if best.candidate.strategy == "ddp" or not follows else ""
    return [f"{found}. That is much: a larger batch or gradient accumulation makes it rarer{halved}."]
