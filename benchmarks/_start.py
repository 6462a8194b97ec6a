"""`dtk bench NAME` is this, with a script beside it by name: a signal before, during or after its work has one line.

dtk replaces itself by it with the signals blocked, so that there is no moment at which one finds Python half started.
Exit codes: those of the script, 128 + n ended by signal n, 141 (128 + SIGPIPE) where nobody reads stdout any more.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
from types import FrameType
from typing import NoReturn, TextIO

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main(name: str, argv: list[str]) -> int:
    """Run the script; its exit code."""

    def leave(signum: int, frame: FrameType | None) -> NoReturn:
        """While nothing is begun: modules may catch what is raised in them, so nothing is."""
        which = "Ctrl-C" if signum == signal.SIGINT else signal.Signals(signum).name
        after_echo = "\n" if os.isatty(2) else ""  # the terminal's ^C
        try:
            os.write(2, f"{after_echo}dtk bench {name}: ended by {which} before anything was measured\n".encode())
        finally:
            os._exit(128 + signum)

    heard = [signum for signum in SIGNALS if signal.getsignal(signum) != signal.SIG_IGN]
    for signum in heard:
        signal.signal(signum, leave)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    sys.argv[1:] = argv
    try:
        runpy.run_module(name, run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BrokenPipeError:
        code = 128 + signal.SIGPIPE
    for signum in heard:  # all is written: Python's own end is no time to be interrupted
        signal.signal(signum, signal.SIG_IGN)
    return code if _flushed(sys.stdout) and _flushed(sys.stderr) else 128 + signal.SIGPIPE


def _flushed(stream: TextIO | None) -> bool:
    """Write out what is left; where it cannot be written, forget it, so that Python's end does not try it again."""
    try:
        if stream is not None:
            stream.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return not isinstance(error, BrokenPipeError)
    return True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
