"""Whether a job of the scheduler is put back into its queue when its ranks have ended. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime, timedelta

PREEMPTED = 75
"""The exit code of a run that has saved and is to be started again (diagnose/evidence.py)."""
_RUNS = {"RUNNING", "SIGNALING", "RESIZING"}  # SLURM shows what is under way in place of RUNNING
_NAME = re.compile(r"\sJobName=.*$", re.MULTILINE)  # it may hold anything
_AT_ONCE = timedelta(seconds=1)  # SLURM's times are whole seconds


@dataclass(frozen=True)
class JobState:
    """What SLURM says of the job while its batch script still runs."""

    state: str
    reason: str
    restarts: int
    preempted: bool
    """Whether its nodes have been asked back since it started."""
    at_once: bool = False
    """Whether they were taken back in the same moment, without a GraceTime."""

    @property
    def runs(self) -> bool:
        """Whether nobody has cancelled it, and its time is not up."""
        return self.state in _RUNS or self.at_once


@dataclass(frozen=True)
class Attempt:
    """One start of the job, a line of requeues.jsonl. Steps are those of checkpoints, None for none."""

    job: str
    restart: int
    exit_code: int
    began_at: int | None
    saved: int | None
    requeued: bool
    time: float
    lost: tuple[str, ...] = ()
    """Nodes that had died, which is why it ended."""

    @property
    def advanced(self) -> bool:
        """Whether it has left a newer checkpoint than it found."""
        return self.saved is not None and (self.began_at is None or self.saved > self.began_at)


@dataclass(frozen=True)
class Decision:
    """`requeue`: ask for it. `why`: words for the log, '' where there is nothing to say."""

    requeue: bool
    why: str = ""


def read_job(text: str) -> JobState | None:
    """What `scontrol show job` printed of one job; None where it is not that."""
    values: dict[str, str] = {}
    for name, value in re.findall(r"(?:^|\s)([A-Za-z]+)=(\S*)", _NAME.sub("", text)):
        values.setdefault(name, value)  # paths and comments, which may hold anything, come last
    restarts = values.get("Restarts", "0")
    if "JobState" not in values or not restarts.isdecimal():
        return None
    asked_back, started, ended = (_time(values.get(f"{name}Time")) for name in ("Preempt", "Start", "End"))
    preempted = asked_back is not None and (started is None or asked_back >= started)  # else of an earlier start
    at_once = preempted and ended is not None and asked_back is not None and ended - asked_back <= _AT_ONCE
    return JobState(values["JobState"], values.get("Reason", ""), int(restarts), preempted, at_once)


def _time(text: str | None) -> datetime | None:
    try:
        return datetime.strptime(text or "", "%Y-%m-%dT%H:%M:%S")
    except ValueError:
        return None


def read_attempts(text: str, job: str) -> list[Attempt]:
    """The attempts of one job in requeues.jsonl; a line that was cut short is left out."""
    names = {field.name for field in fields(Attempt)}
    needed = names - {"lost"}  # which older lines do not have
    found = []
    for line in text.splitlines():
        try:
            values = json.loads(line)
        except ValueError:
            continue
        if isinstance(values, dict) and values.keys() >= needed and values["job"] == job:
            known = {name: values[name] for name in names & values.keys()}
            found.append(Attempt(**known | {"lost": tuple(known.get("lost") or ())}))
    return found


def line_of(attempt: Attempt) -> str:
    """The attempt as a line of requeues.jsonl."""
    return json.dumps(asdict(attempt)) + "\n"


def stalled(attempts: Iterable[Attempt]) -> int:
    """How many of the last attempts have saved no new checkpoint.

    Those that the scheduler ended and requeued by itself are not counted. Those that have lost a node are: the script
    may be what brings nodes down.
    """
    number = 0
    for attempt in attempts:
        if attempt.advanced:
            number = 0
        elif attempt.requeued and (attempt.exit_code == PREEMPTED or attempt.lost):
            number += 1
    return number


def decide(
    now: Attempt,
    job: JobState | None,
    told: bool,
    earlier: Iterable[Attempt],
    most: int,
    lost: tuple[str, ...] = (),
) -> Decision:
    """What to do when the ranks have ended. `now.requeued` is not read.

    `told`: the batch script got SIGTERM, which is the end of the job and counts where SLURM says nothing of it.
    `most`: attempts in a row without a new checkpoint. `lost`: its nodes that have died.
    """
    if job is not None and job.restarts > now.restart:
        return Decision(False)  # SLURM has done it: preemption, scontrol requeue, a lost node
    running = job.runs if job is not None else not told
    if job is not None and job.preempted and running and now.exit_code not in (0, PREEMPTED):
        return Decision(True, "preempted before it had saved anything new; it is requeued")
    if lost and running and now.exit_code not in (0, PREEMPTED):
        number = stalled((*earlier, replace(now, requeued=True, lost=lost)))
        if number >= most:
            return Decision(False, _no_progress(now, number))
        return Decision(True, f"{', '.join(lost)} {'is' if len(lost) == 1 else 'are'} lost; it is requeued")
    if now.exit_code != PREEMPTED:
        return Decision(False)
    timed_out = job is not None and job.reason == "TimeLimit"
    if not running and not timed_out:
        why = "the job was cancelled" if job is not None else "SLURM has ended the job and does not say why"
        return Decision(False, f"saved, and not requeued: {why}")
    asked_back = job is not None and job.preempted
    number = stalled((*earlier, replace(now, requeued=not asked_back)))
    if number >= most and not asked_back:
        return Decision(False, _no_progress(now, number))
    at = f"at step {now.saved}" if now.advanced else "without a new checkpoint"
    return Decision(True, f"ended to go on later, {at}; it is requeued")


def _no_progress(now: Attempt, number: int) -> str:
    found = "it has none" if now.saved is None else f"the last is of step {now.saved}"
    times = "1 start" if number == 1 else f"{number} starts in a row"
    return (
        f"not requeued: no new checkpoint in {times} (--max-stalls {number}; {found}). Give it a longer --time or a "
        "longer --grace, or save more often, and submit again; a script that saves outside the run directory needs a "
        "higher --max-stalls"
    )
