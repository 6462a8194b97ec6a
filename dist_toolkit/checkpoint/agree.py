"""What ranks tell each other before they go on with a save."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dist_toolkit.errors import MismatchedCallError, PeerError
from dist_toolkit.process_group import Group


def agree_or_raise(group: Group, what: str, error: Exception | None) -> None:
    """Raise this rank's own error if it has one (once all know), and PeerError if another rank has one. Collective."""
    try:
        group.agree(what, error)
    except PeerError:
        if error is not None and not isinstance(error, OSError):
            raise error from None
        raise


def same_step(steps: Sequence[int]) -> None:
    """Raise MismatchedCallError if the steps that the ranks save, by rank, are not all the same."""
    if len(set(steps)) > 1:
        listed = ", ".join(f"rank {rank}: {value}" for rank, value in enumerate(steps))
        raise MismatchedCallError(f"ranks save different steps ({listed}); every rank must save the same step")


def differing(prints: Sequence[Mapping[str, str]]) -> tuple[str, ...]:
    """Names, sorted, under which the ranks, one mapping each, do not all have the same."""
    names = sorted({name for one in prints for name in one})
    return tuple(name for name in names if len({one.get(name) for one in prints}) > 1)
