"""What differs between a terminal and a pipe: colour, progress, questions."""

from __future__ import annotations

import os
import shutil
import sys
import time
from dataclasses import dataclass
from types import TracebackType
from typing import TextIO

from dist_toolkit.checkpoint.tool.units import printable, size_text

_PERIOD = 0.1  # seconds between two looks of the progress line


@dataclass(frozen=True)
class Style:
    """Colours, or none."""

    colour: bool = False

    def bad(self, text: str) -> str:
        """Damage, and what is removed."""
        return self._wrap("31", text)

    def good(self, text: str) -> str:
        """Whole, and what is added."""
        return self._wrap("32", text)

    def dim(self, text: str) -> str:
        """What matters less."""
        return self._wrap("2", text)

    def bold(self, text: str) -> str:
        """Headings."""
        return self._wrap("1", text)

    def _wrap(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self.colour and text else text


def style_of(stream: TextIO) -> Style:
    """In colour on a terminal, unless NO_COLOR is set or the terminal is a dumb one."""
    return Style(stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb")


class Progress:
    """A line on stderr that says how many bytes were read; nothing where stderr is no terminal."""

    def __init__(self, total: int, stream: TextIO | None = None) -> None:
        self._total, self._stream = total, stream or sys.stderr
        self._live = self._stream.isatty()
        self._done, self._what, self._shown = 0, "", 0.0
        self._start = time.monotonic()

    def begin(self, what: str) -> None:
        """The next bytes are of this."""
        self._what = what

    def advance(self, count: int) -> None:
        """So many bytes more were read."""
        self._done += count
        now = time.monotonic()
        if self._live and now - self._shown >= _PERIOD:
            self._shown = now
            rate = self._done / max(now - self._start, 1e-9)
            share = 100 * self._done // max(self._total, 1)
            text = f"{share:3}%  {size_text(self._done)} of {size_text(self._total)}  {size_text(int(rate))}/s  "
            text = (text + printable(self._what))[: shutil.get_terminal_size().columns - 1]
            self._stream.write(f"\r\x1b[2K{text}")
            self._stream.flush()

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._stream.write("\r\x1b[2K")
            self._stream.flush()


def note(text: str) -> None:
    """Say something beside the answer, on stderr."""
    print(f"dtk ckpt: {printable(text)}", file=sys.stderr, flush=True)


def can_ask() -> bool:
    """Whether a person sits there to answer."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def ask(question: str) -> bool:
    """Whether the answer is yes; anything but y or yes is no."""
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")
