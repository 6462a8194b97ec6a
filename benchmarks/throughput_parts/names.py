"""How reports call things. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from bench_parts.markdown import count
from bench_parts.statistics import Spread

from .summary import ModeSummary, WorkSummary
from .tables import STRATEGIES


def who(mode: ModeSummary) -> str:
    """`DDP on 2 ranks`, `DataParallel on 2 GPUs`, `one process on 1 core`."""
    spec = STRATEGIES[mode.strategy]
    if spec.launched:
        return f"{spec.title} on {count(mode.ranks, 'rank')}"
    return f"{spec.title} on {count(mode.nproc, 'GPU') if mode.device != 'cpu' else count(mode.threads, 'core')}"


def work_name(work: WorkSummary, among: Sequence[WorkSummary], weak: bool) -> str:
    """`mlp`, with precision and batch where another workload differs in them."""
    name = work.model
    if len({other.precision for other in among}) > 1:
        name += f" {work.precision}"
    if len({other.batch for other in among if other.model == work.model}) > 1:
        name += f", batch {work.batch}" + (" a rank" if weak else "")
    return name


def stem(work: WorkSummary) -> str:
    """Of the files of figures."""
    return f"{work.model}-{work.precision}-{work.batch}"


APART = "\N{DAGGER}"
"""Marks a ratio of two that were not alive at once."""

APART_NOTE = f"{APART} The two were not alive at once: the ratio is of different minutes."


def times(spread: Spread, apart: bool, to: str = "") -> str:
    """`0.98x dp x2`, with the mark where the two were apart."""
    return f"{spread.median:.2f}x{APART if apart else ''} {to}".rstrip()


def rate(value: float) -> str:
    """Samples a second."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"
