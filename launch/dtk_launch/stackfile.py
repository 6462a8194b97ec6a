"""Where a rank writes its stacks when dtk asks for them, by one of two signals.

The gentle one is answered by the main thread between two steps of the interpreter: all threads stand still then, and
Python writes the stacks of all. In a call of C it is answered when that returns. The other is answered at once, from
within the signal, and only for a main thread that executes no Python: half-made frames there have crashed Python
(3.11: once in some 500 signals). docs/decisions/0019.

The rank's bootstrap loads this file by path, so it stands alone: standard library only, no import from this package.
"""

from __future__ import annotations

import atexit
import ctypes
import faulthandler
import os
import signal
from collections.abc import Callable
from functools import partial

TYPE_CHECKING = False  # typing is a quarter of what a rank waits for before its script; nothing of it is needed to run
if TYPE_CHECKING:
    from typing import Any

_FROM_FIRST = 8  # SIGRTMIN + 8 and the next: no library that torch programs use has them


def register(path: str, turn: Callable[..., object] | None = None) -> dict[str, Any]:
    """Append stacks to the file at each signal of two numbers that nobody else uses.

    What the rank's record is to say of it: the signals and the descriptor; empty where there are no such signals.
    Forked children (workers of a DataLoader) inherit them, and write to the same file. Behind the second, `turn` is
    called as Python calls a handler: as soon as the main thread of this process executes Python.
    """
    first = getattr(signal, "SIGRTMIN", None)
    add = getattr(faulthandler, "register", None)
    if first is None or add is None:
        return {}
    now = int(first) + _FROM_FIRST
    gentle = now + 1
    if any(signal.getsignal(number) != signal.SIG_DFL for number in (now, gentle)):
        return {}
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o666)
        handler = _between_two_steps(partial(faulthandler.dump_traceback, descriptor, True))
        signal.signal(gentle, handler)
        signal.siginterrupt(gentle, False)  # a system call of somebody's C goes on, as with the other one
        if turn is not None:
            signal.signal(now, turn)
        add(now, file=descriptor, all_threads=False, chain=turn is not None)
        if turn is not None:
            os.register_at_fork(after_in_child=partial(add, now, file=descriptor, all_threads=False, chain=False))
    except (AttributeError, OSError, ValueError, RuntimeError):
        return {}
    _ours.update({gentle: handler})
    atexit.register(_ignore, now, gentle)
    return {"stacks": {"signal": now, "gentle": gentle, "fd": descriptor}}


_ours: dict[int, Callable[..., object]] = {}


def script_ended() -> None:
    """Have the main thread answer while Python waits for threads (threading._shutdown): for a lock, without a timeout.

    A system call that is restarted would not let it. That lasts until the first function of atexit: only Python's own
    locks are waited for till then, and they bear it.
    """
    for gentle, handler in _ours.items():
        if signal.getsignal(gentle) is handler:
            signal.siginterrupt(gentle, True)
            atexit.register(signal.siginterrupt, gentle, False)


def _ignore(now: int, gentle: int) -> None:
    """At the end of atexit: Python is about to take its handlers away, and a question that comes later would kill."""
    signal.signal(gentle, signal.SIG_IGN)
    faulthandler.unregister(now)
    signal.signal(now, signal.SIG_IGN)


def _between_two_steps(call: Callable[[], object]) -> Callable[..., object]:
    """A handler for a signal that makes the call, and executes no Python: dynamo would trace that into a compiled step.

    It is Python's own PyObject_CallNoArgs with two arguments too many, the handler's own, which C leaves alone.
    """
    caller = ctypes.PyDLL(None).PyObject_CallNoArgs
    caller.argtypes = [ctypes.py_object, ctypes.c_int, ctypes.py_object]
    caller.restype = ctypes.py_object
    return partial(caller, call)
