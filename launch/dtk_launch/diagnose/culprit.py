"""Which rank failed first, and which ones only followed it. Pure."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass

from dtk_launch import lost
from dtk_launch.diagnose.evidence import PREEMPTED, RankEnd

# What torchrun ends the other ranks with after a failure, and the codes of scripts that obey.
_ENDED_SIGNALS = {"SIGTERM", "SIGINT", "SIGHUP"}
_ENDED_CODES = {128 + signal.SIGTERM, 128 + signal.SIGINT, 128 + signal.SIGHUP, PREEMPTED}
_WORKER_EXIT = "DataLoaderWorkerExit"  # of `related`: children.py
_TEARDOWN_NS = 1_000_000_000  # in which a rank that ends with 0 may be still, its connections closed
_TORCHRUN_GRACE_NS = 25_000_000_000  # its own SIGKILL comes 30 s after the failure; the rest is for clocks

UNSTARTED, UNRECORDED = "ended before it started", "failed without a record"


@dataclass(frozen=True)
class Follower:
    """A rank that failed because another did, `delay_ns` after it (less than 0: its end was noticed earlier).

    None: nobody knows when.
    """

    rank: int
    how: str
    delay_ns: int | None


@dataclass(frozen=True)
class Verdict:
    """Who failed first, or ended with 0 while the others still needed it. `blamed_by`: ranks whose error names it.

    `code` is the exit code of the first that failed, None where nobody saw it.
    """

    culprit: RankEnd
    followers: tuple[Follower, ...]
    blamed_by: tuple[int, ...] = ()
    code: int | None = None


def judge(ends: Sequence[RankEnd]) -> Verdict | None:
    """The verdict on a run of which these ranks have ended; None if none has failed.

    A failure of a rank's own comes before every loss of a connection, which somebody else caused, and that before an
    end by torchrun; within these, the earliest is the first. A rank that the errors of the others name takes its place.
    Where all have only lost a connection, that is one that had ended with 0 before.
    """
    ended = sorted((end for end in ends if end.failed), key=lambda end: end.time_ns)
    failed = [end for end in ended if not ended_unstarted(end)]
    if not failed:
        return None
    first = min(failed, key=lambda end: (_order(end, failed[0]), end.time_ns))
    blamed = [rank for rank in first.blames if rank != first.rank] if first.rank not in first.blames else []
    early = _ended_early(ends, first) if first.unsaid or _order(first, failed[0]) == 1 else []
    named = (end for rank in blamed for end in (*failed, *early) if end.rank == rank)
    culprit = (*named, *early, first)[0]
    blamed_by = tuple(end.rank for end in failed if culprit.rank in end.blames and end is not culprit)
    followers = tuple(
        Follower(end.rank, _how(end, failed[0]), end.time_ns - culprit.time_ns if end.recorded else None)
        for end in ended
        if end is not culprit
    )
    return Verdict(culprit, followers, blamed_by, culprit.code or first.code)


def _ended_early(ends: Sequence[RankEnd], first: RankEnd) -> list[RankEnd]:
    """The ranks that ended well before this one lost its connection, the earliest first."""
    gone = (end for end in ends if not end.failed and end.time_ns < first.time_ns + _TEARDOWN_NS)
    return sorted(gone, key=lambda end: end.time_ns)


def _order(end: RankEnd, earliest: RankEnd) -> int:
    if was_ended(end, earliest):
        return 2
    return 1 if lost_connection(end) or (end.unsaid and end is not earliest) else 0


def lost_connection(end: RankEnd) -> bool:
    """Whether a rank failed because another one was gone."""
    if any(other["type"] == _WORKER_EXIT for other in end.related):  # it lost its own worker
        return False
    if end.type is not None:
        return lost.lost_connection(end.type, end.message)
    return end.signal == "SIGABRT" and lost.lost_connection(None, end.words)


def was_ended(end: RankEnd, earliest: RankEnd) -> bool:
    """Whether a rank was ended by torchrun, or by dtk, because another one had failed."""
    obeyed = _obeyed(end)
    if end.told and obeyed:  # whatever the clocks say: on a busy machine an earlier death may be seen later
        return True
    if end is earliest and not end.after_end:
        return False
    if end.code is None or obeyed:  # None: torchrun was ended itself, and has told nothing
        return True
    return end.signal == "SIGKILL" and (end.after_end or end.time_ns - earliest.time_ns > _TORCHRUN_GRACE_NS)


def ended_unstarted(end: RankEnd) -> bool:
    """Whether a rank was ended by torchrun, or with it, before it had begun: it has done nothing, and lost nothing."""
    return not end.recorded and (end.code is None or end.told or _obeyed(end))


def has_followed(end: RankEnd) -> bool:
    """Whether a rank's own words, signal or code say that it ended because the run did."""
    return _obeyed(end) or end.unsaid or lost_connection(end)


def _obeyed(end: RankEnd) -> bool:
    """Whether it ended as those do that are told to."""
    return end.signal in _ENDED_SIGNALS or (end.signal is None and end.code in _ENDED_CODES)


def _how(end: RankEnd, earliest: RankEnd) -> str:
    if ended_unstarted(end):
        return UNSTARTED
    if was_ended(end, earliest):
        return "ended by torchrun"
    if not end.recorded:
        return UNRECORDED
    if end.unsaid:
        return "ended before it could say how"
    return "lost the connection" if lost_connection(end) else "failed too"
