"""`dtk logs`: the output of ranks from their files, each line with its rank; followed while the run lives."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from dtk_launch.errors import PlanError
from dtk_launch.follow import Tail, prefix
from dtk_launch.rank_files import RankRecord
from dtk_launch.ranklist import RankList, parse_ranks
from dtk_launch.runview import RunView, read_run

_POLL = 0.1  # seconds between looks at the files
_LOOK_EVERY = 1.0  # seconds between looks for new ranks, and whether the run is over
_BLOCK = 1 << 16
_FOLLOWED_TAIL = 10  # lines of each file that -f begins with


@dataclass(frozen=True)
class LogOptions:
    """What to show. `ranks` None: all. `tail`: lines of each file to begin with; None: all, and ten to follow.

    `alone`: a file that is shown in place of those of ranks, as it is.
    """

    ranks: RankList | None = None
    suffixes: tuple[str, ...] = ("log", "err")
    tail: int | None = None
    prefixed: bool = True
    alone: Path | None = None


def ended(view: RunView) -> bool:
    """Whether nothing more will come of a run that is no job's."""
    return view.over


def asked_ranks(folder: Path, text: str) -> RankList:
    """The ranks that --rank names. Raises PlanError if the run has none of them, as far as that is known."""
    asked = parse_ranks(text, "--rank")
    view = read_run(folder)
    written = (int(path.stem) for path in (folder / "ranks").glob("*") if path.stem.isdecimal())
    ranks = max(view.nodes * view.nproc, 1 + max(written, default=-1))
    if ranks and not any(rank in asked for rank in range(ranks)):
        there = f"ranks 0 to {ranks - 1}" if ranks > 1 else "rank 0 alone"
        raise PlanError(f"--rank={text}: this run has {there}; pass one of them, or leave --rank out for all")
    return asked


def show(
    folder: Path, options: LogOptions, follow: bool, environ: Mapping[str, str], over: Callable[[RunView], bool] = ended
) -> bool:
    """Print the logs of a run: rank by rank what is there, then as it comes. A reader that goes away ends it.

    Returns whether there was anything.
    """
    coloured = sys.stdout.isatty() and not environ.get("NO_COLOR")
    out, found = sys.stdout.fileno(), False
    with contextlib.suppress(BrokenPipeError, KeyboardInterrupt):
        for data in lines(folder, options, follow, coloured, over):
            found = True
            view = memoryview(data)
            while view:
                view = view[os.write(out, view) :]
    return found


def lines(
    folder: Path,
    options: LogOptions,
    follow: bool,
    coloured: bool = False,
    ended: Callable[[RunView], bool] = ended,
) -> Iterator[bytes]:
    """Whole lines, many at a time. With `follow`, until the run has ended and everything of it has been given."""
    tails: dict[tuple[int, str], Tail] = {}
    tail = _FOLLOWED_TAIL if follow and options.tail is None else options.tail
    first, over, next_look, several = True, not follow, 0.0, False
    while True:
        if time.monotonic() >= next_look:
            next_look = time.monotonic() + _LOOK_EVERY
            view = read_run(folder)
            several = view.nodes > 1  # not known of a job in the queue
            over = over or ended(view)
            for key, path in files(folder, options).items():
                if key not in tails:  # a rank that comes later is shown from its start
                    tails[key] = Tail(path, start_of_tail(path, tail) if first and tail is not None else 0)
        found = False
        for (rank, _), source in sorted(tails.items()):
            prefixed = options.prefixed and options.alone is None
            start = prefix(rank, _host(folder, rank) if several else None, coloured) if prefixed else b""
            source.at_end = False
            while not source.at_end:
                got = source.lines(final=over)
                found = found or not source.at_end
                if got:
                    yield b"".join(start + line for line in got)
        if over:
            return
        first = False
        if not found:
            time.sleep(_POLL)


def files(folder: Path, options: LogOptions) -> dict[tuple[int, str], Path]:
    """(rank, `0` for stdout or `1` for stderr) -> file, of the ranks that are asked for and have written."""
    if options.alone is not None:
        return {(0, "0"): options.alone}
    found = {}
    with contextlib.suppress(OSError):
        for path in (folder / "ranks").iterdir():
            suffix = path.suffix[1:]
            wanted = suffix in options.suffixes and path.stem.isdecimal()
            if wanted and (options.ranks is None or int(path.stem) in options.ranks):
                found[int(path.stem), "0" if suffix == "log" else "1"] = path
    return found


def start_of_tail(path: Path, count: int) -> int:
    """Where the last `count` lines of a file begin, found from its end. An unfinished last line is one of them."""
    try:
        with open(path, "rb") as file:
            end = position = file.seek(0, os.SEEK_END)
            if count == 0 or end == 0:
                return end
            file.seek(end - 1)
            wanted = count + (file.read(1) == b"\n")
            while position > 0:
                size = min(_BLOCK, position)
                position -= size
                file.seek(position)
                block = file.read(size)
                here = block.count(b"\n")
                if here >= wanted:
                    return position + _nth_from_end(block, wanted) + 1
                wanted -= here
    except OSError:
        pass
    return 0


def _nth_from_end(block: bytes, count: int) -> int:
    index = len(block)
    for _ in range(count):
        index = block.rindex(b"\n", 0, index)
    return index


def _host(folder: Path, rank: int) -> str | None:
    record = RankRecord.read(folder / "ranks" / f"{rank}.json")
    return record.host.partition(".")[0] if record is not None else None
