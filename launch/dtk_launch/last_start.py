"""A run as its directory tells it, put right by what the scheduler knows of its job. Pure."""

from __future__ import annotations

from dataclasses import replace

from dtk_launch.runview import RunView
from dtk_launch.schedulers.base import JobState

_ALIVE = ("running", "suspended", "stopped", "signaling", "resizing")
_SKEW = 5.0  # seconds by which the clocks of two hosts may differ


def as_of(state: JobState | None, view: RunView) -> RunView:
    """The run, dead where no end is on record and the scheduler (None: it is silent) says that this start is over.

    Ranks that were killed with their dtk, or lost with their node, leave none.
    """
    if view.over or state is None:
        return view
    if state.state in _ALIVE:
        if view.started is None or state.began is None or view.started >= state.began - _SKEW:
            return view
        now = "the job has started again"
    else:
        now = f"the scheduler says: {state.state}"
    known = state.over and state.ran is not None and view.seconds is not None
    return replace(
        view,
        state="dead",
        why=f"no end of its last start is on record{' yet' * (state.state == 'completing')}, and {now}",
        seconds=min(state.ran or 0.0, view.seconds or 0.0) if known else None,
        eta=None,
        ranks=tuple(replace(rank, rate=None, late=False, slower=None) for rank in view.ranks),
    )
