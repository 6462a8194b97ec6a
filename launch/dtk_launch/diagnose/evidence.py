"""What is known of how each rank ended, from its record, its death and torchrun's words. Pure but for `tail`."""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dtk_launch.ranks import RankRecord

PREEMPTED = 75
"""The exit code of a rank that has saved and wants to be started again (EX_TEMPFAIL)."""

_REPORT = re.compile(r"rank\s*: (\d+) \(local_rank: \d+\)\s+exitcode\s*: (-?\d+) \(pid: (\d+)\)")
_FAILED = re.compile(r"failed \(exitcode: (-?\d+)\) local_rank: \d+ \(pid: (\d+)\)")
_FAULT_LINE = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+) in (?P<function>\S+)')
_TAIL = 4096  # bytes of a rank's stderr that are looked at


@dataclass(frozen=True)
class RankEnd:
    """How one rank ended.

    `code` as a shell gives it (128 + n for signal n); None where nobody saw it. `time_ns` is Unix time: when its
    exception left the script, or when it died. `where` is the innermost line of the user's own code. `note` says what a
    signal alone does not, such as the kernel's out-of-memory killer. `words` are the last of its stderr.
    """

    rank: int
    node: str
    host: str
    pid: int
    time_ns: int
    code: int | None
    signal: str | None = None
    type: str | None = None
    message: str = ""
    traceback: str = ""
    where: Mapping[str, Any] | None = None
    blames: tuple[int, ...] = ()
    note: str = ""
    words: str = ""
    after_end: bool = False
    """It had recorded a clean end before it died of `signal`."""

    @property
    def failed(self) -> bool:
        """Whether it ended, and not well."""
        return self.code != 0


def exit_codes(launcher_output: str) -> dict[int, int]:
    """pid -> exit code as Popen gives it (negative: a signal), from what torchrun has printed so far."""
    codes = {int(pid): int(code) for code, pid in _FAILED.findall(launcher_output)}
    return codes | {int(pid): int(code) for _, code, pid in _REPORT.findall(launcher_output)}


def end_of(
    record: RankRecord,
    node: str,
    reported: int | None,
    died_ns: int | None,
    now_ns: int,
    words: str = "",
    fault: str = "",
    note: str = "",
    failing_ns: int | None = None,
) -> RankEnd | None:
    """How this rank ended; None if it is not known to have.

    `reported` is its exit code in torchrun's words, `died_ns` when its process ended (Unix time), `words` the last of
    its stderr, `fault` what Python wrote on a fatal signal, `failing_ns` when an exception left its script.
    The rank's own record counts first, but for one of success: it can crash later.
    """
    end = record.exit
    base = RankEnd(record.rank, node, record.host, record.pid, now_ns if died_ns is None else died_ns, reported)
    if end is not None and (end.code != 0 or not reported):
        base = replace(base, time_ns=end.time_ns, code=end.code, note=note, where=end.where, blames=tuple(end.blames))
        return replace(base, type=end.type, message=end.message, traceback=end.traceback)
    if died_ns is None and reported is None:
        return None
    base = replace(base, words=words, after_end=end is not None)
    if end is None and failing_ns is not None:  # torchrun was faster than the record
        return replace(
            base, time_ns=failing_ns, code=1, type="an error", message="it was ended before it could say which"
        )
    if reported is not None and reported < 0:
        where = fault_place(fault)
        base = replace(base, code=128 - reported, signal=signal_name(-reported), where=where, note=note)
    return base


def fault_place(dump: str) -> dict[str, Any] | None:
    """The innermost line of the user's code in a dump of faulthandler, of the thread that got the signal."""
    current = dump.partition("Current thread")[2].partition("\n\n")[0]
    frames = list(_FAULT_LINE.finditer(current))
    found = next((f for f in frames if is_users(f["file"])), None)
    if found is None:
        return None
    return {"file": found["file"], "line": int(found["line"]), "function": found["function"], "text": ""}


def is_users(filename: str) -> bool:
    """Whether a file is the user's: not Python's, not an installed package's, not ours. By its path alone."""
    own = Path(__file__).resolve().parent.parent
    ours = (str(own), str(own.parent.parent / "dist_toolkit") + "/")
    standard = re.search(r"/lib/python3\.\d+/(?!site-packages)", filename)
    return not (standard or "-packages/" in filename or filename.startswith((*ours, "<")))


def tail(folder: Path, rank: int, suffix: str) -> str:
    """The last of a rank's file with this suffix; '' if there is none."""
    try:
        with open(folder / f"{rank}.{suffix}", "rb") as file:
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
