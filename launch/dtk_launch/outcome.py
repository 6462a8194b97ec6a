"""How a run ended: its exit code (docs/wire.md) and, if a rank failed, the verdict on it. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from dtk_launch.diagnose.culprit import Verdict, ended_unstarted, has_followed, judge
from dtk_launch.diagnose.evidence import PREEMPTED, RankEnd, signal_name
from dtk_launch.diagnose.words import how_it_ended, printable, ranks_words

HUNG = 124
"""The exit code of a run that was ended because it hung, as timeout(1) has it."""
LOST = 69
"""The exit code of a run that has lost too many of its nodes to go on (EX_UNAVAILABLE)."""


@dataclass(frozen=True)
class Outcome:
    """The run's exit code, the verdict if a rank failed, and a line to say where there is none."""

    code: int
    verdict: Verdict | None = None
    line: str = ""


@dataclass(frozen=True)
class Ending:
    """How torchrun ended, and what dtk knows of it.

    `code` as Popen gives it; `signalled`: the signal that the run was ended for; `early`: how a script that ended well
    left before it was done, '' if nothing says so; `hang`: the hang that the run was in.
    """

    code: int
    signalled: int | None
    early: str = ""
    hang: dict[str, Any] | None = None
    others_failed: bool = False
    """Another node has."""
    lost: tuple[str, ...] = ()
    """Hosts that are gone without a word, where the run cannot go on without them."""


def decide(
    torchrun_code: int,
    signalled: int | None,
    ends: Sequence[RankEnd],
    ranks: int,
    hung: bool = False,
    early: str = "",
    lost: Sequence[str] = (),
) -> Outcome:
    """The outcome of a run that has ended, `ends` of its `ranks` started ones.

    `torchrun_code` as Popen gives it; `signalled`: the signal that dtk got and passed on, or sent
    because the run `hung` and was to be ended for it; of several nodes that end takes ranks of the others with it,
    told or not. `early`: how a script that ended well left before it was done, for that signal; '' if
    nothing says so.
    """
    unstarted = [end for end in ends if ended_unstarted(end)]
    verdict = judge(ends)
    ends = [end for end in ends if end not in unstarted]
    well = bool(ends) and not unstarted and len(ends) == ranks and not any(end.failed for end in ends)
    if early and well:
        return Outcome(PREEMPTED, line=f"preempted: {early}; started again, it goes on")
    if torchrun_code == 0:
        return Outcome(0)
    saved = any(end.code == PREEMPTED for end in ends)
    preempted = saved and (signalled or (verdict and verdict.culprit.code == PREEMPTED))
    # torchrun does not say how ranks ended that were told to; where it was killed, they were
    unsaved = [e for e in ends if e.failed and not has_followed(e) and (e.code is not None or torchrun_code < 0)]
    if preempted and not unsaved and len(ends) >= ranks:
        return Outcome(PREEMPTED, line="preempted and saved; started again, it goes on")
    if hung:
        return Outcome(HUNG, line="ended because it hung (--on-hang stop)")
    if lost:
        gone = f"{', '.join(lost)} {'is' if len(lost) == 1 else 'are'} lost"
        return Outcome(LOST, line=f"ended because {gone}; started again, it goes on from the last checkpoint")
    if preempted:
        code = 128 + signalled if signalled else next((end.code for end in unsaved if end.code), 1)
        return Outcome(code, line=_half_saved(ends, unsaved))
    if signalled:
        if well:
            return Outcome(0, line=f"every rank ended with 0 after {signal_name(signalled)}, so this run is done")
        return Outcome(128 + signalled, line=f"ended by {signal_name(signalled)}")
    if torchrun_code < 0 and (verdict is None or verdict.culprit.code is None):
        name = signal_name(-torchrun_code)
        return Outcome(128 - torchrun_code, line=f"torchrun was killed by {name}, and its ranks with it")
    if verdict is None:
        code = 128 - torchrun_code if torchrun_code < 0 else torchrun_code
        return Outcome(code, line="torchrun failed; it said:" if ranks else "no rank started; torchrun said:")
    return Outcome(verdict.code or torchrun_code, verdict)


def failed_elsewhere(culprit: RankEnd, node: str, told: Collection[str]) -> bool:
    """Whether this node has ended because of another one. `told`: the nodes that were told to end.

    A scheduler tells all nodes at once, and the rank that obeyed first is not at fault.
    """
    return culprit.node != node and not (culprit.node in told and has_followed(culprit))


def _half_saved(ends: Sequence[RankEnd], unsaved: Sequence[RankEnd]) -> str:
    """What to say of a run of which some ranks have saved, and some cannot have."""
    killed = [end.rank for end in unsaved if end.code is None or end.signal == "SIGKILL"]
    said = []
    if killed:
        was, had = ("was", "it") if len(killed) == 1 else ("were", "they")
        said.append(f"{ranks_words(killed)} {was} killed before {had} had saved")
    others = [end for end in unsaved if end.rank not in killed]
    said += [printable(f"rank {end.rank} ended before it had saved ({how_it_ended(end)})") for end in others[:3]]
    saved = ranks_words([end.rank for end in ends if end.code == PREEMPTED])
    what = "; ".join(said) or "of some ranks no end is known"
    return f"preempted, but {what}: the save of {saved} is not known to be complete"
