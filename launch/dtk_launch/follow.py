"""Follows the rank logs and prints them, whole lines only, each with its rank in front."""

from __future__ import annotations

import os
import time
from collections.abc import Container
from pathlib import Path

_COLOURS = (36, 33, 32, 35, 34, 31, 96, 93, 92, 95, 94, 91)
_PARTIAL_AFTER = 0.5  # seconds without growth after which an unfinished line is shown


class Tail:
    """One file, read from `offset` on."""

    def __init__(self, path: Path, offset: int) -> None:
        self._path = str(path)
        self._offset = offset
        self._pending = b""
        self._grown = 0.0
        self.at_end = False
        """Whether the last look found nothing new."""

    def lines(self, final: bool) -> list[bytes]:
        """New lines, each with its newline. An unfinished one is held back until it rests, or `final` and the end."""
        data = self._read()
        self.at_end = not data
        if data:
            self._grown = time.monotonic()
            self._pending += data
        *whole, rest = self._pending.split(b"\n")
        lines = [line + b"\n" for line in whole]
        if rest and not data and (final or time.monotonic() - self._grown > _PARTIAL_AFTER):
            lines.append(rest + b"\n")
            rest = b""
        self._pending = rest
        return lines

    def _read(self) -> bytes:
        try:
            if os.stat(self._path).st_size <= self._offset:  # noqa: PTH116  # a third of pathlib's time
                return b""
            with open(self._path, "rb") as file:
                file.seek(self._offset)
                data = file.read(1 << 20)
        except OSError:
            return b""
        self._offset += len(data)
        return data


class Follower:
    """Prints the output of ranks to two descriptors. A reader that went away silences it; the files have everything."""

    def __init__(
        self,
        folder: Path,
        host: str | None,
        out: int,
        err: int,
        environ: dict[str, str],
        quiet: Container[int] = (),
    ) -> None:
        """`host` goes before the rank in the prefix (several nodes); the output of `quiet` ranks stays in their files.

        A live line is shown where `out` is a terminal.
        """
        self._quiet = quiet
        self._folder, self._host = folder, host
        self._targets = {"log": out, "err": err}
        self._sizes = {path.name: path.stat().st_size for path in folder.iterdir() if path.suffix in (".log", ".err")}
        self._tails: dict[tuple[int, str], Tail] = {}
        self._coloured = {fd: os.isatty(fd) and not environ.get("NO_COLOR") for fd in (out, err)}
        self._live = b""
        self.live = os.isatty(out) and 0 not in quiet
        """Whether rank 0 is to keep a progress line (DTK_LIVE)."""

    def add(self, rank: int) -> None:
        """Follow this rank's two files; one that was there before is shown from its end at that time."""
        for suffix in () if rank in self._quiet else self._targets:
            name = f"{rank}.{suffix}"
            if (rank, suffix) not in self._tails:
                self._tails[rank, suffix] = Tail(self._folder / name, self._sizes.get(name, 0))

    def pump(self, final: bool = False) -> bool:
        """Print what is new, and say whether anything was.

        `final`: also the last unfinished line of each file, and take the live line away.
        """
        found = False
        for (rank, suffix), tail in sorted(self._tails.items()):
            tail.at_end = False
            while not tail.at_end:
                lines = tail.lines(final)
                found = found or not tail.at_end
                if lines:
                    self._show_live(b"")
                    target = self._targets[suffix]
                    start = prefix(rank, self._host, self._coloured[target])
                    self._write(target, b"".join(start + line for line in lines))
        if self.live:
            self._show_live(b"" if final else self._read_live())
        return found

    def _read_live(self) -> bytes:
        try:
            return (self._folder / "0.live").read_bytes().split(b"\n")[0].strip()
        except OSError:
            return b""

    def _show_live(self, line: bytes) -> None:
        """Show `line` at the bottom of the terminal, in place; empty takes it away."""
        if not self.live or line == self._live:
            return
        width = _columns(self._targets["log"])
        shown = line.decode(errors="replace")[: width - 1].encode()
        self._write(self._targets["log"], b"\r\x1b[2K" + shown)
        self._live = line

    def _write(self, target: int, data: bytes) -> None:
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(target, view) :]
        except OSError:  # the terminal or the reader is gone; the run goes on
            self._targets = {suffix: (-1 if fd == target else fd) for suffix, fd in self._targets.items()}
            self._coloured[-1] = False


def prefix(rank: int, host: str | None, coloured: bool) -> bytes:
    """What stands before each line of a rank: `[3] `, or `[n2:3] `."""
    text = f"[{host}:{rank}]" if host else f"[{rank}]"
    if coloured:
        text = f"\x1b[{_COLOURS[rank % len(_COLOURS)]}m{text}\x1b[0m"
    return text.encode() + b" "


def _columns(target: int) -> int:
    try:
        return os.get_terminal_size(target).columns or 80
    except OSError:
        return 80
