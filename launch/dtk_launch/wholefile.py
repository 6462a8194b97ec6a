"""Files that are there whole or not at all."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def put(path: Path, text: str, temporary: Path) -> None:
    """Replace the file by this text, written to `temporary` first. Raises OSError, and leaves nothing behind then.

    A surrogate, of a name that is no UTF-8, becomes what JSON reads as one.
    """
    try:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
        os.replace(temporary, path)  # noqa: PTH105
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
