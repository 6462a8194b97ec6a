"""How a script ends when it cannot begin."""

from __future__ import annotations

import os
import sys
from typing import NoReturn


def refuse(message: str) -> NoReturn:
    """One line on standard error, by one rank, and exit code 2, as for an unknown option."""
    if os.environ.get("RANK", "0") == "0":
        print(message, file=sys.stderr)
    raise SystemExit(2)
