"""`--fail-if-worse`: why B does not pass. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bench_parts.quantities import Quantity
from bench_parts.statistics import FEWEST

from .changes import OTHER_WORK, TOO_FEW, Change
from .results import Matched, Result


def reasons(a: Result, b: Result, matched: Matched, changes: Sequence[Change], limit: float) -> Iterator[str]:
    """One line each; none where all that A measured is in B, could be judged, and is not worse.

    Args:
        limit: per cent by which a number may surely get worse.
    """
    if b.status != "complete":
        yield f"B is {b.status}, not complete"
    for name, why in b.failed.items():
        if name not in a.failed:
            yield f"failed in B, not in A: {name}: {why}"
    for quantity in matched.only_a:
        yield f"missing in B: {' '.join(quantity.name)}"
    for pair, change in zip(matched.both, changes, strict=True):
        if change.verdict == OTHER_WORK:
            yield f"could not be judged, as the work differs ({'; '.join(change.other_work)}): {' '.join(change.name)}"
        elif change.verdict == TOO_FEW and not _is_as_good(*pair):
            least = min(change.a.count, change.b.count)
            yield f"could not be judged, with {least} of the {FEWEST} rounds a side it takes: {' '.join(change.name)}"
        elif 100 * change.worse_by > limit:
            yield f"worse by more than {limit:g} %: {' '.join(change.name)}"


def _is_as_good(a: Quantity, b: Quantity) -> bool:
    """Whether every value of B is at least as good as every one of A, which needs no interval."""
    if a.better == "higher":
        return min(b.values) >= max(a.values)
    return max(b.values) <= min(a.values)
