"""How a run ended: its exit code (docs/wire.md) and one or two lines that say why. Pure."""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dtk_launch.ranks import RankRecord

PREEMPTED = 75
# A rank that dies of one of these does not do so because a peer went away (NCCL's SIGABRT can be that). On a busy
# machine its death is seen later than its peers record theirs, which it caused; so it counts as this much earlier.
# torchrun's own SIGKILL comes 30 s after the failure.
_NEVER_A_CONSEQUENCE = {signal.SIGKILL, signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE}
_KILL_LEAD_NS = 2_000_000_000
# What torchrun ends the other ranks with after a failure: of a rank that had already recorded its end, no failure.
_CLOSING = {-signal.SIGTERM, -signal.SIGKILL}
_REPORT = re.compile(r"rank\s*: (\d+) \(local_rank: \d+\)\s+exitcode\s*: (-?\d+) \(pid: (\d+)\)")


@dataclass(frozen=True)
class Failure:
    """The rank that failed first. `code` is None when nobody saw it."""

    rank: int
    code: int | None
    what: str
    time_ns: int


@dataclass(frozen=True)
class Outcome:
    """The run's exit code, and the rank that failed first if one did."""

    code: int
    failure: Failure | None
    lines: tuple[str, ...]


def torchrun_report(text: str) -> dict[int, int]:
    """pid -> exit code as Popen gives it (negative: a signal), from the failures that torchrun printed at its end."""
    return {int(pid): int(code) for _, code, pid in _REPORT.findall(text)}


def decide(
    torchrun_code: int,
    signalled: int | None,
    records: Mapping[int, RankRecord],
    vanished: Mapping[int, int],
    reported: Mapping[int, int],
    run_dir: Path,
) -> Outcome:
    """The outcome of a run that has ended. `torchrun_code` as Popen gives it; `signalled`: what ended dtk."""
    if torchrun_code == 0:
        return Outcome(0, None, ())
    ends = [record.exit for record in records.values() if record.exit is not None]
    failure = _first_failure(records, vanished, reported)
    if any(end.code == PREEMPTED for end in ends) and (signalled or (failure and failure.code == PREEMPTED)):
        return Outcome(PREEMPTED, None, ("preempted and saved; run the same command again to go on",))
    if signalled:
        if ends and len(ends) == len(records) and all(end.code == 0 for end in ends):
            return Outcome(0, None, ())
        return Outcome(128 + signalled, None, (f"ended by {_signal_name(signalled)}",))
    if torchrun_code < 0 and (failure is None or failure.code is None):
        name = _signal_name(-torchrun_code)
        return Outcome(128 - torchrun_code, None, (f"torchrun was killed by {name}, and its ranks with it",))
    if failure is None:
        lines = ("no rank reported a failure; torchrun said:",) if not records else ("torchrun failed; it said:",)
        return Outcome(128 - torchrun_code if torchrun_code < 0 else torchrun_code, None, lines)
    line = f"rank {failure.rank} failed first: {failure.what}; its log: {run_dir}/ranks/{failure.rank}.err"
    return Outcome(failure.code if failure.code is not None else torchrun_code, failure, (line,))


def _first_failure(
    records: Mapping[int, RankRecord], vanished: Mapping[int, int], reported: Mapping[int, int]
) -> Failure | None:
    failures: list[Failure] = []
    closed: list[Failure] = []
    for rank, record in records.items():
        end = record.exit
        # An exit record of 0 is contradicted by torchrun when the process crashed after it, in the interpreter's end.
        if end is not None and end.code != 0:
            detail = f"{end.type}: {_first_line(end.message)} " if end.type not in (None, "SystemExit") else ""
            failures.append(Failure(rank, end.code, f"{detail}(exit code {end.code})".strip(), end.time_ns))
        elif end is None and rank in vanished:
            failures.append(_unrecorded(rank, reported.get(record.pid), vanished[rank]))
        elif (code := reported.get(record.pid, 0)) != 0:
            when = end.time_ns if end is not None else record.started_ns
            found = closed if end is not None and code in _CLOSING else failures
            found.append(_unrecorded(rank, code, when))
    return min(failures or closed, key=lambda failure: failure.time_ns, default=None)


def _unrecorded(rank: int, code: int | None, time_ns: int) -> Failure:
    if code is None:
        return Failure(rank, None, "its process vanished without an exit record (killed?)", time_ns)
    if code < 0:
        lead = _KILL_LEAD_NS if -code in _NEVER_A_CONSEQUENCE else 0
        return Failure(rank, 128 - code, f"killed by {_signal_name(-code)}", time_ns - lead)
    return Failure(rank, code, f"(exit code {code})", time_ns)


def _first_line(message: str) -> str:
    return message.strip().partition("\n")[0][:200]


def _signal_name(signum: int) -> str:
    try:
        return signal.Signals(signum).name
    except ValueError:
        return f"signal {signum}"
