"""A rank's entry in the run directory, `ranks/<rank>.json` (docs/wire.md): that it started, and how it ended.

The rank's bootstrap loads this file by path, so it stands alone: standard library only, no import from this package.
"""

from __future__ import annotations

import atexit
import builtins
import contextlib
import json
import os
import signal
import time
import traceback
from types import TracebackType

TYPE_CHECKING = False  # typing is a quarter of what a rank waits for before its script; nothing of it is needed to run
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Behind = Callable[[BaseException, TracebackType | None, Callable[[str], bool]], list[dict[str, Any]]]

_LONGEST_MESSAGE = 2000
_LONGEST_TRACEBACK = 8000
_LONGEST_RELATED = 500
_MOST_SPARE = 3500  # bytes; a page of vitals.py has room for them
_MOST_RELATED, _MOST_MEMBERS = 3, 6
_REMOTE = {"RemoteTraceback", "_RemoteTraceback"}  # the text of a worker's traceback: children.py
_OWN = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120
# Files that the user did not write: Python's own, installed packages, this package and the runtime beside it.
_FOREIGN_PARTS = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")
_FOREIGN_FOLDERS = (
    os.path.dirname(os.path.abspath(os.__file__)) + os.sep,  # noqa: PTH100, PTH120
    _OWN + os.sep,
    os.path.join(os.path.dirname(os.path.dirname(_OWN)), "dist_toolkit") + os.sep,  # noqa: PTH118, PTH120
)


class Record:
    """This rank's entry. Does nothing without a folder; a failed write never ends the run."""

    def __init__(
        self, folder: str | None, rank: str, supervisor: str | None, spare: Callable[[bytes], None] | None = None
    ) -> None:
        """`spare` gets what cannot be written, cut to 3500 bytes, with the reason."""
        self._spare = spare
        self._path = os.path.join(folder, f"{rank}.json") if folder else None  # noqa: PTH118
        self._pid = os.getpid()
        self._exited = False
        self._left: dict[str, Any] | None = None
        self._entry: dict[str, Any] = {
            "rank": int(rank),
            "local_rank": int(os.environ.get("LOCAL_RANK", "0")),
            "pid": self._pid,
            "host": os.uname().nodename,  # socket.gethostname(), without the 5 ms of its import
            "restart": int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")),
            "supervisor": supervisor,
            "started_ns": time.time_ns(),
        }

    def start(self, **facts: Any) -> None:
        """Write the entry with these facts; the end is written when the interpreter ends (registered first: last)."""
        self._entry |= facts
        self._write()
        atexit.register(self.end, 0)

    def end(self, code: int, **how: Any) -> None:
        """Write how the rank ended, now or at `time_ns`, `mono_ns`. The first call counts; a forked child has none."""
        if self._exited or os.getpid() != self._pid:
            return
        nothing: dict[str, Any] = {"type": None, "message": "", "traceback": "", "where": self._left}
        nothing |= {"blames": [], "related": []}
        now = {"time_ns": time.time_ns(), "mono_ns": time.monotonic_ns()}
        self._entry["exit"] = {"code": code, **nothing, **now, **how}
        self._write()
        self._exited = True

    def say_soon(self, code: int, **how: Any) -> None:
        """Leave in the supervisor's memory how the rank is ending: torchrun may end it before the whole is written."""
        if self._spare is not None and not self._exited and os.getpid() == self._pid:
            nothing: dict[str, Any] = {"traceback": "", "where": None, "related": []}
            self._spare(_shortest(self._entry | {"exit": {"code": code, **nothing, **how}}))

    def leave(self, where: dict[str, Any] | None) -> None:
        """Keep the place at which the script asked for a clean end, for the record of it."""
        self._left = where

    def _write(self) -> None:
        if self._path is None:
            return
        temporary = f"{self._path}.tmp"
        try:
            with open(temporary, "w", encoding="utf-8") as file:
                json.dump(self._entry, file)
            os.replace(temporary, self._path)  # noqa: PTH105
        except OSError as error:
            with contextlib.suppress(OSError):
                os.unlink(temporary)  # noqa: PTH108
            if self._spare is not None:
                self._spare(_shortest(self._entry | {"unwritten": error.strerror or type(error).__name__}))


def _shortest(entry: dict[str, Any]) -> bytes:
    """The entry as JSON of at most 3500 bytes: without what is long, as far as need be."""
    said = dict(entry.get("exit") or {})
    cuts: list[dict[str, Any]] = [
        {},
        {"traceback": said.get("traceback", "")[-1000:], "related": [], "message": said.get("message", "")[:400]},
        {"traceback": "", "related": [], "message": said.get("message", "")[:400]},
        {"traceback": "", "related": [], "message": said.get("message", "")[:100], "where": None, "blames": []},
    ]
    for cut in cuts:
        whole = entry | {"exit": said | cut} if said else entry
        text = json.dumps(whole, ensure_ascii=False).encode(errors="replace")
        if len(text) <= _MOST_SPARE:
            return text
    return b""


def exit_code(error: BaseException) -> int:
    """The exit code with which Python ends after `error` (128 + n where it ends by signal n)."""
    if isinstance(error, SystemExit):
        code = error.code
        return 0 if code is None else code & 0xFF if isinstance(code, int) else 1
    return 128 + signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1


def record_error(
    record: Record,
    error: BaseException,
    trace: TracebackType | None,
    moment: tuple[int, int] | None = None,
    behind: Behind | None = None,
) -> None:
    """Write the exit record of a script that ended by `error`; a clean exit is left to the interpreter's end.

    But for a SystemExit of another type, which tells why. `moment` is when the error left the script, by both clocks
    (now). `behind` finds what else is to be in `related` (children.py).
    """
    now, now_mono = moment or (time.time_ns(), time.monotonic_ns())
    code = exit_code(error)
    if code == 0:
        record.leave(place_of(error, trace))
        if type(error) is not SystemExit:  # Lightning's way to leave on SIGTERM
            record.end(0, type=type(error).__name__)
        return
    stamped = getattr(error, "time_ns", None)
    when = stamped if isinstance(stamped, int) else now
    how: dict[str, Any] = {"type": type(error).__name__, "message": shortened(message_of(error), _LONGEST_MESSAGE)}
    how |= {"blames": blamed_ranks(error), "time_ns": when, "mono_ns": now_mono - (now - when)}
    record.say_soon(code, **how)
    text = "" if isinstance(error, SystemExit) else "".join(traceback.format_exception(type(error), error, trace))
    record.end(
        code,
        traceback=text[-_LONGEST_TRACEBACK:],
        where=place_of(error, trace),
        related=[*(behind(error, trace, is_users) if behind else ()), *related_to(error)],
        **how,
    )


def message_of(error: BaseException) -> str:
    """What the error says; '' where its own __str__ fails."""
    with contextlib.suppress(Exception):
        return str(error)
    return ""


def shortened(text: str, most: int) -> str:
    """The text, or its beginning and its end, which is where messages say what is wrong."""
    if len(text) <= most:
        return text
    head = most * 2 // 3
    return f"{text[:head]} ... {len(text) - most} characters ... {text[head - most :]}"


def related_to(error: BaseException) -> list[dict[str, Any]]:
    """The errors behind this one, the next first, and those in it if it is a group, the first few of each."""
    found: list[dict[str, Any]] = []
    chain = [error]
    while len(found) < _MOST_RELATED:
        behind, how = chain[-1].__cause__, "caused by"
        if behind is None and not chain[-1].__suppress_context__:
            behind, how = chain[-1].__context__, "while handling"
        if behind is None or behind in chain or type(behind).__name__ in _REMOTE:
            break
        found.append(_told(how, behind))
        chain.append(behind)
    return found + [_told("holds", member) for member in _members(error)[:_MOST_MEMBERS]]


def _members(error: BaseException) -> list[BaseException]:
    """Those of a group, and of the groups in it; none of another exception."""
    group = getattr(builtins, "BaseExceptionGroup", ())  # Python 3.10 has none
    inner: tuple[BaseException, ...] = error.exceptions if isinstance(error, group) else ()
    return [leaf for member in inner for leaf in (_members(member) or [member])]


def _told(how: str, error: BaseException) -> dict[str, Any]:
    message = shortened(message_of(error), _LONGEST_RELATED)
    return {"how": how, "type": type(error).__name__, "message": message, "where": place_of(error, error.__traceback__)}


def place_of(error: BaseException, trace: TracebackType | None) -> dict[str, Any] | None:
    """The innermost line of the user's own code in the traceback: file, line, function, text. None if there is none."""
    if isinstance(error, SyntaxError) and error.filename and error.lineno:
        text = (error.text or "").strip()
        return {"file": error.filename, "line": error.lineno, "function": "<module>", "text": text}
    found = None
    for frame in traceback.extract_tb(trace):
        if is_users(frame.filename):
            found = frame
    if found is None:
        return None
    return {"file": found.filename, "line": found.lineno, "function": found.name, "text": found.line or ""}


def is_users(filename: str) -> bool:
    """Whether a file of a traceback is the user's: not Python's, not an installed package's, not ours."""
    return not (filename.startswith(("<", *_FOREIGN_FOLDERS)) or any(part in filename for part in _FOREIGN_PARTS))


def blamed_ranks(error: BaseException) -> list[int]:
    """The ranks that the error itself names as the ones at fault (dist_toolkit's DesyncError and PeerError do)."""
    for name in ("ranks", "failures"):
        ranks = getattr(error, name, None)
        if isinstance(ranks, (tuple, list, dict)) and ranks and all(type(rank) is int for rank in ranks):
            return sorted(ranks)
    return []
