"""What is known of how each rank ended, from its record, its death and torchrun's words.

Pure, but for `tail` and the source lines of a fatal signal's stack.
"""

from __future__ import annotations

import linecache
import os
import re
import signal
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dtk_launch.faults import Fault
from dtk_launch.rank_files import RankRecord

PREEMPTED = 75
"""The exit code of a rank that has saved and wants to be started again (EX_TEMPFAIL)."""

_REPORT = re.compile(r"rank\s*: (\d+) \(local_rank: \d+\)\s+exitcode\s*: (-?\d+) \(pid: (\d+)\)")
_TOLD = re.compile(r"Sending process (\d+) closing signal ")
_FAILED = re.compile(r"failed \(exitcode: (-?\d+)\) local_rank: \d+ \(pid: (\d+)\)")
_FAULT_LINE = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+) in (?P<function>\S+)')
_QUIET_CODES = {
    0,
    PREEMPTED,
    *(-n for n in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL)),
}  # of ranks that were told to end
_TOLD_SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
_FATAL_SIGNALS = {signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL}
_UNSAID = "an error"
_LONGEST_CORE_NS = 60_000_000_000  # torchrun kills 30 s after the first failure
_FAULT_FRAMES = 4  # of the user's, that are kept of a fatal signal
_TAIL = 4096  # bytes of a rank's stderr that are looked at
_CLOCKS_NS = 2_000_000_000  # by which the clock of the file system may differ


@dataclass(frozen=True)
class RankEnd:
    """How one rank ended.

    `code` as a shell gives it (128 + n for signal n); None where nobody saw it. `time_ns` is Unix time: when its
    exception left the script, or when it died. `where` is the innermost line of the user's own code; of a fatal signal
    `traceback` has those alone. `note` says what a signal alone does not, such as the kernel's out-of-memory killer.
    `words` are the last of its stderr.
    """

    rank: int
    node: str
    host: str
    pid: int | None
    time_ns: int
    code: int | None
    signal: str | None = None
    type: str | None = None
    message: str = ""
    traceback: str = ""
    where: Mapping[str, Any] | None = None
    blames: tuple[int, ...] = ()
    related: tuple[Mapping[str, Any], ...] = ()
    note: str = ""
    words: str = ""
    after_end: bool = False
    """It had recorded a clean end before it died of `signal`."""
    told: bool = False
    """It still ran when torchrun told it to end, because another one had failed."""
    unwritten: str = ""
    """Why its record could not be written, in the system's words."""
    recorded: bool = True
    """False: there is no record of its start. `time_ns` is when dtk looked, `pid` None where torchrun says none."""

    @property
    def failed(self) -> bool:
        """Whether it ended, and not well."""
        return self.code != 0

    @property
    def unsaid(self) -> bool:
        """Whether an exception ended its script, and it was ended before it could say which."""
        return self.type == _UNSAID


def exit_codes(launcher_output: str) -> dict[int, int]:
    """pid -> exit code as Popen gives it (negative: a signal), from what torchrun has printed so far."""
    codes = {int(pid): int(code) for code, pid in _FAILED.findall(launcher_output)}
    return codes | {int(pid): int(code) for _, code, pid in _REPORT.findall(launcher_output)}


def told_to_end(launcher_output: str) -> set[int]:
    """Pids of the ranks that ran when torchrun told them to end."""
    return {int(pid) for pid in _TOLD.findall(launcher_output)}


@dataclass(frozen=True)
class Observed:
    """What others than the rank itself know of its end. Times are Unix times in ns."""

    reported: int | None = None
    """Its exit code in torchrun's words, as Popen gives it."""
    seen: int | None = None
    """The exit code that dtk saw; where the rank recorded nothing, those count that torchrun says nothing of."""
    told: bool = False
    """Whether it ran when torchrun told it to end."""
    died_ns: int | None = None
    """When its process ended."""
    failing_ns: int | None = None
    """When an exception left its script."""
    words: str = ""
    """The last of its stderr."""
    fault: Fault | None = None
    """What Python wrote on a fatal signal."""
    note: str = ""
    """What explains its signal, such as the kernel's out-of-memory killer."""


def end_of(record: RankRecord, node: str, now_ns: int, observed: Observed) -> RankEnd | None:
    """How this rank ended; None if it is not known to have.

    The rank's own record counts first, but for one of success: it can crash later. The code is then the process's.
    """
    end, reported, died_ns = record.exit, observed.reported, observed.died_ns
    if reported is None and observed.seen in _QUIET_CODES:
        reported = observed.seen
    moment = now_ns if died_ns is None else died_ns
    base = RankEnd(record.rank, node, record.host, record.pid, moment, reported, told=observed.told)
    base = replace(base, unwritten=record.unwritten)
    if end is not None and (end.code != 0 or not reported):
        code, note = _last_word(end.code, observed)
        base = replace(base, time_ns=end.time_ns, code=code, note=note, where=end.where)
        base = replace(base, blames=tuple(end.blames), related=tuple(end.related))
        return replace(base, type=end.type, message=end.message, traceback=end.traceback)
    if died_ns is None and reported is None:
        return None
    base = replace(base, words=observed.words, after_end=end is not None)
    failing_ns = observed.failing_ns
    if end is None and failing_ns is not None and reported != 0:  # torchrun was faster than the record
        return replace(base, time_ns=failing_ns, code=1, type=_UNSAID, message="it was ended before it could say which")
    if reported is not None and reported < 0:
        base = replace(base, code=128 - reported, signal=signal_name(-reported), note=observed.note)
        if observed.fault is not None:
            base = _of_fault(base, observed.fault)
    return base


def _last_word(recorded: int, observed: Observed) -> tuple[int, str]:
    """Exit code and note of a rank that recorded an error: an excepthook can end it with another code.

    The recorded code counts where others ended the process since, where it crashed in its teardown (its connections
    are gone by then, and not each time in the same way), where it hides its error (0), and of a rank that has saved.
    """
    code = observed.seen if observed.reported is None else observed.reported
    if not code or recorded in (0, PREEMPTED):
        return recorded, observed.note
    if code < 0:
        late = f"by {signal_name(-code)} after its script had ended"
        return recorded, observed.note or (late if -code in _FATAL_SIGNALS else "")
    others = code - 128 in _TOLD_SIGNALS or (observed.told and code == PREEMPTED)
    return recorded if others else code, observed.note


def _of_fault(end: RankEnd, fault: Fault) -> RankEnd:
    """The end by a signal of which Python said something: it began then, however long the core dump took."""
    if fault.signal is None or fault.signal not in (end.signal, _cut_short(end, fault)):
        return end  # a child's, that the rank outlived
    code = 128 + signal.Signals[fault.signal]
    frames = fault_frames(fault.text)
    where = frames[0] if frames else None
    trace = "".join(
        f'  File "{f["file"]}", line {f["line"]}, in {f["function"]}\n    {f["text"]}\n' for f in reversed(frames)
    )
    return replace(end, code=code, signal=fault.signal, time_ns=fault.time_ns, where=where, traceback=trace)


def _cut_short(end: RankEnd, fault: Fault) -> str | None:
    """The signal of a rank that was killed while its core was being written."""
    soon = end.time_ns - fault.time_ns < _LONGEST_CORE_NS
    return fault.signal if end.signal == "SIGKILL" and not end.note and soon else None


def fault_frames(dump: str) -> list[dict[str, Any]]:
    """The innermost lines of the user's code in a dump of faulthandler, of the thread that got the signal."""
    current = dump.partition("Current thread")[2].partition("\n\n")[0]
    found = [frame for frame in _FAULT_LINE.finditer(current) if is_users(frame["file"])][:_FAULT_FRAMES]
    places = [(frame["file"], int(frame["line"]), frame["function"]) for frame in found]
    return [
        {"file": file, "line": line, "function": function, "text": linecache.getline(file, line).strip()}
        for file, line, function in places
    ]


def is_users(filename: str) -> bool:
    """Whether a file is the user's: not Python's, not an installed package's, not ours. By its path alone."""
    own = Path(__file__).resolve().parent.parent
    ours = (str(own), str(own.parent.parent / "dist_toolkit") + "/")
    standard = re.search(r"/lib/python3\.\d+/(?!site-packages)", filename)
    return not (standard or "-packages/" in filename or filename.startswith((*ours, "<")))


def tail(folder: Path, rank: int, suffix: str, since_ns: int = 0) -> str:
    """The last of a rank's file with this suffix; '' if there is none, or nothing was written since (Unix time)."""
    try:
        with open(folder / f"{rank}.{suffix}", "rb") as file:
            if os.fstat(file.fileno()).st_mtime_ns < since_ns - _CLOCKS_NS:
                return ""
            file.seek(max(0, file.seek(0, 2) - _TAIL))
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def signal_name(signum: int) -> str:
    """`SIGKILL` for 9; `signal 40` for what has no name."""
    try:
        return signal.Signals(signum).name
    except ValueError:
        return f"signal {signum}"
