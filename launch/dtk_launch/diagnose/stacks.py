"""Stacks as Python's faulthandler writes them. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

_THREAD = re.compile(r"^(Current thread 0x|Thread 0x|Stack )[0-9a-f]*.*\(most recent call first\):\s*$")
_FRAME = re.compile(r'^  File "(?P<file>.*)", line (?P<line>\d+) in (?P<function>.*)$')
_CUT = "  ..."  # more than 100 frames
# Where the frames of the process that a worker was forked from begin.
_FORKED = ("multiprocessing/popen_fork.py", "multiprocessing/popen_forkserver.py", "multiprocessing/spawn.py")
_JOINING = ("poll", "wait")  # functions there of a process that waits for one which it has forked
_BOOTSTRAP = "dtk_launch/worker.py"
# The first frames of a main thread whose script is over: Python waits for threads, and for child processes.
_ENDINGS = (("/threading.py", "_shutdown"), ("/multiprocessing/util.py", "_exit_function"))
_THREAD_START = ("_bootstrap", "_bootstrap_inner", "run")


@dataclass(frozen=True)
class Frame:
    """A line that is being executed."""

    file: str
    line: int
    function: str


Stack = tuple[Frame, ...]
"""The frames of a thread, innermost first."""


@dataclass(frozen=True)
class Thread:
    """A thread of a dump. `current`: it got the signal."""

    current: bool
    stack: Stack
    whole: bool
    """Nothing was cut off its outer end."""


def threads(dump: str) -> list[Thread]:
    """The threads of one dump, as they stand there: the latest that was started comes first."""
    found: list[Thread] = []
    current, whole = False, True
    frames: list[Frame] = []
    for line in [*dump.splitlines(), "Thread 0x0 (most recent call first):"]:
        heading = _THREAD.match(line)
        if heading:
            if frames:
                found.append(Thread(current, tuple(frames), whole))
            current, frames, whole = heading[1] != "Thread 0x", [], True
        elif frame := _FRAME.match(line):
            frames.append(Frame(frame["file"], int(frame["line"]), frame["function"]))
        elif line == _CUT:
            whole = False
    return found


def is_complete(dump: str) -> bool:
    """Whether a dump has been written to its end: the main thread's, the last, is down to its first frame."""
    found = threads(dump)
    if not found or not dump.endswith("\n"):
        return False
    last = found[-1]
    return not last.whole or last.stack[-1].function == "<module>" or is_ending(last.stack)


def is_likely_complete(dump: str) -> bool:
    """Whether a dump that has not grown for a while is whole: a function of atexit is the first frame of its stack."""
    found = threads(dump)
    return bool(found) and dump.endswith("\n") and found[-1].current


def is_ending(stack: Stack) -> bool:
    """Whether it is that of a main thread whose script is over, and Python waits for what the script has started."""
    if not stack:
        return False
    first = stack[-1]
    return any(first.file.endswith(file) and first.function == function for file, function in _ENDINGS)


def other_stacks(dump: str) -> list[Stack]:
    """The frames of each thread but the main one, without those that start a thread; the latest started first."""
    found = []
    for thread in threads(dump)[:-1]:
        own = thread.stack
        while own and own[-1].file.endswith("/threading.py") and own[-1].function in _THREAD_START:
            own = own[:-1]
        found.append(own)
    return found


def main_stack(dump: str) -> Stack:
    """The main thread's frames, without those of dtk's bootstrap and of the process that forked it; () if none."""
    found = threads(dump)
    if not found:
        return ()
    # the last is the main thread; a dump of over 100 threads is cut before it, and then the signal's is likeliest
    last = found[-1]
    if not (last.stack[-1].function == "<module>" or not last.whole):
        last = next((thread for thread in found if thread.current), last)
    own = last.stack
    for index, frame in enumerate(own):
        if frame.file.endswith(_FORKED) and frame.function not in _JOINING:
            own = own[:index]
            break
    while own and (own[-1].file.endswith(_BOOTSTRAP) or own[-1].file.startswith("<frozen runpy")):
        own = own[:-1]
    return own


def common_outer(before: Stack, after: Stack) -> Stack:
    """The outer calls that both stacks have, at the lines of the second, innermost first."""
    same = 0
    for old, new in zip(reversed(before), reversed(after), strict=False):
        if (old.file, old.function) != (new.file, new.function):
            break
        same += 1
        if old.line != new.line:  # what it calls is another call
            break
    return after[len(after) - same :]
