"""Any name can be printed, whatever the encoding of the terminal, file or pipe; and what if it takes nothing."""

from __future__ import annotations

import codecs
import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO

_HANDLER = "dtk_launch.spell_out"
_FIRST_BYTE, _LAST_BYTE = 0xDC80, 0xDCFF  # what stands in a file's name for a byte that is no text


def never_fail() -> None:
    """Have stdout and stderr spell out a character that they cannot encode, where Python would raise."""
    codecs.register_error(_HANDLER, spell_out)
    for stream in (sys.stdout, sys.stderr):
        spell_out_in(stream)


@contextlib.contextmanager
def written() -> Iterator[None]:
    """What is printed to stdout in it is written when it ends.

    Where a reader has left, leave quietly by SystemExit(141), as SIGPIPE would; where it cannot be written for another
    reason, with a line and EX_IOERR (74).
    """
    try:
        yield
        if sys.stdout is not None:  # closed before Python began
            sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python writes what is left when it ends
        if isinstance(error, BrokenPipeError):
            sys.exit(128 + 13)
        print(f"dtk: error: stdout cannot be written: {error.strerror}", file=sys.stderr)
        sys.exit(74)


def spell_out_in(stream: TextIO | None) -> None:
    """The same for one stream; one that never raises as it is stays as it is."""
    errors, reconfigure = getattr(stream, "errors", None), getattr(stream, "reconfigure", None)
    if errors in ("strict", "surrogateescape") and reconfigure is not None:
        reconfigure(errors=_HANDLER)


def spell_out(error: UnicodeError) -> tuple[str | bytes, int]:
    r"""A codec's handler: the byte of a file's name as it is, another character as `\u00fc`, which JSON reads, too."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    character = error.object[error.start]
    if _FIRST_BYTE <= ord(character) <= _LAST_BYTE:
        return bytes([ord(character) - 0xDC00]), error.start + 1
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2)), error.start + 1


def json_text(value: Any, indent: int | None = 2) -> str:
    """JSON for people and programs alike; bytes of a file's name that are no text as JSON escapes them."""
    import json

    text = json.dumps(value, indent=indent, ensure_ascii=False, default=str)
    return text.encode("utf-8", "backslashreplace").decode()
