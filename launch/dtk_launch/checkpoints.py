"""`dtk ckpt ...`: runs the runtime's program for checkpoints in place of this process."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

_MODULE = "dist_toolkit.checkpoint.tool"


def run(args: tuple[str, ...]) -> NoReturn:
    """Replace this process, so that exit code and Ctrl-C are the program's own."""
    # without -P, a json.py in the current folder would be taken for the standard library's
    safe = ["-P"] if sys.version_info >= (3, 11) else []
    os.execv(sys.executable, [sys.executable, *safe, "-m", _MODULE, *args])
