"""Where a rank writes its stacks when dtk asks for them: Python writes them from C, whatever the script waits for.

The rank's bootstrap loads this file by path, so it stands alone: standard library only, no import from this package.
"""

from __future__ import annotations

import faulthandler
import os
import signal
from typing import Any

_FROM_FIRST = 8  # SIGRTMIN + 8: no library that torch programs use has it


def register(path: str) -> dict[str, Any]:
    """Append the stacks of all threads to the file at each signal of a number that nobody else uses.

    What the rank's record is to say of it: the signal and the descriptor; empty where there is no such signal. Forked
    children (workers of a DataLoader) inherit both, and write to the same file.
    """
    first = getattr(signal, "SIGRTMIN", None)
    add = getattr(faulthandler, "register", None)
    if first is None or add is None:
        return {}
    number = int(first) + _FROM_FIRST
    if signal.getsignal(number) != signal.SIG_DFL:
        return {}
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o666)
        add(number, file=descriptor, all_threads=True, chain=False)
    except (OSError, ValueError, RuntimeError):
        return {}
    return {"stacks": {"signal": number, "fd": descriptor}}
