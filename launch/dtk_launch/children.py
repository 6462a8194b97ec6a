"""What processes that a script started have to do with the error that ends it, for the record of a rank (docs/wire.md).

The rank's bootstrap loads this file by path, so it stands alone: standard library only, no import from this package.
"""

from __future__ import annotations

import contextlib
import signal
from types import TracebackType

TYPE_CHECKING = False  # typing is a quarter of what a rank waits for before its script; nothing of it is needed to run
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

RAISED, FIRST_RAISED, ENDED = "raised in a worker process", "first raised in a worker process", "before it"
_REMOTE = {"RemoteTraceback", "_RemoteTraceback"}  # multiprocessing's, and that of concurrent.futures and of joblib
_LOADER = "MultiProcessingDataLoaderIter"  # how the names of torch's and torchdata's end
_LONGEST_CHAIN = 4
_PATIENCE = 3.0  # seconds in which a worker whose pipe was closed has ended, too


def behind(error: BaseException, trace: TracebackType | None, is_users: Callable[[str], bool]) -> list[dict[str, Any]]:
    """Entries of `related`: where in a worker the error was raised, and the workers of its DataLoader that had ended.

    `is_users` says whether a file is the user's. Waits a few seconds at most, for a worker that is ending.
    """
    found: list[dict[str, Any]] = []
    with contextlib.suppress(Exception):
        found += _raised(error, is_users)
    with contextlib.suppress(Exception):
        found += _ended(error, trace)
    return found


def is_remote(error: BaseException) -> bool:
    """Whether an exception is but the text of a worker's traceback."""
    return type(error).__name__ in _REMOTE and isinstance(getattr(error, "tb", None), str)


def _chain(error: BaseException) -> Iterator[BaseException]:
    behind: BaseException | None = error
    for _ in range(_LONGEST_CHAIN):
        if behind is None:
            return
        yield behind
        behind = behind.__cause__ or (None if behind.__suppress_context__ else behind.__context__)


def _raised(error: BaseException, is_users: Callable[[str], bool]) -> list[dict[str, Any]]:
    chain = list(_chain(error))
    for depth, remote in enumerate(chain):
        if depth and is_remote(remote):
            where = innermost(remote.tb, is_users)  # type: ignore[attr-defined]
            how = RAISED if depth == 1 else FIRST_RAISED
            return [{"how": how, "type": type(chain[depth - 1]).__name__, "message": "", "where": where}]
    return []


def innermost(text: str, is_users: Callable[[str], bool]) -> dict[str, Any] | None:
    """The innermost line of the user's own code in a traceback's text, of its last exception if that has one."""
    import re

    frame = re.compile(r'^ *File "([^"]+)", line (\d+), in (.+)(?:\n    (.*))?', re.MULTILINE)
    for part in (text.rpartition("Traceback (most recent call last):")[2], text):
        for file, line, function, source in reversed(frame.findall(part)):
            if is_users(file):
                return {"file": file, "line": int(line), "function": function, "text": source.strip()}
    return None


def _ended(error: BaseException, trace: TracebackType | None) -> list[dict[str, Any]]:
    """The workers that ended with a failure, if the error came out of their DataLoader and does not say it itself."""
    words = str(error)
    if "in DataLoader worker process" in words or "exited unexpectedly with" in words or "killed by signal" in words:
        return []
    traces = (trace, *(other.__traceback__ for other in list(_chain(error))[1:]))
    workers = next((loader._workers for one in traces for loader in _loaders(one)), ())
    codes = _codes(workers)
    if not codes and workers and isinstance(error, (OSError, EOFError)):
        with contextlib.suppress(Exception):  # torch's handler of SIGCHLD raises
            _wait(workers)
        codes = _codes(workers)
    return [
        {
            "how": ENDED,
            "type": "DataLoaderWorkerExit",
            "message": f"a worker process of its DataLoader (pid {pid}) {_words(code)}",
            "where": None,
        }
        for pid, code in codes
    ]


def _loaders(trace: TracebackType | None) -> Iterator[Any]:
    while trace is not None:
        owner = trace.tb_frame.f_locals.get("self")
        if type(owner).__name__.endswith(_LOADER) and hasattr(owner, "_workers"):
            yield owner
        trace = trace.tb_next


def _codes(workers: Any) -> list[tuple[int, int]]:
    found = []
    for worker in workers:
        with contextlib.suppress(Exception):
            if worker.exitcode:
                found.append((worker.pid, worker.exitcode))
    return found


def _wait(workers: Any) -> None:
    """Until one of the workers has ended."""
    from multiprocessing.connection import wait

    ended = wait([worker.sentinel for worker in workers], _PATIENCE)
    for worker in workers:
        if worker.sentinel in ended:
            worker.join(_PATIENCE)


def _words(code: int) -> str:
    if code > 0:
        return f"had ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"
