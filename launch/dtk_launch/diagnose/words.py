"""A verdict in words, for people and as JSON. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dtk_launch.diagnose.culprit import UNRECORDED, UNSTARTED, Follower, Verdict
from dtk_launch.diagnose.evidence import RankEnd

_CAUGHT = re.compile(r"Caught (\w+) in ([\w ]+?)\.\nOriginal (.*)", re.DOTALL)
_FRAME = re.compile(r'^  File "(?P<file>[^"]+)", line (?P<line>\d+), in (?P<function>.+)(?:\n    (?P<text>.*))?', re.M)
_NUMBER = re.compile(r"-?\d{1,30}", re.ASCII)
_RAISED, _ENDED = "raised in a worker process", "before it"  # entries of `related`: children.py
_GONE = re.compile(r"DataLoader worker \(pid")  # torch's words for one that has ended
_EARLY_HINT = "it may have had fewer batches than the others, or a return or an exit that only this rank takes"
_CHAIN = re.compile(
    r"\n(?:The above exception was the direct cause of the following exception"
    r"|During handling of the above exception, another exception occurred):\n"
)
_WIDEST = 200  # characters of a line of a message
_LINES, _LAST_WORDS = 8, 4  # of a message after its first, and of stderr
_MOST_SPANS = 8  # of ranks, that are shown
_FRAMES = 3  # of the traceback that are shown


def verdict_lines(
    verdict: Verdict,
    run_dir: Path,
    hosts: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    unwritten: str = "",
    kept: bool = True,
) -> list[str]:
    """The verdict in a few lines: who, how, where, how long before the others, and where more can be read.

    `hosts` has the host of each node, where there are several. `unwritten`: why the run directory could not be written;
    `kept`: whether verdict.json could be.
    """
    end = verdict.culprit
    lines = [f"{rank_name(end, hosts or {})} {headline(end)}"]
    lines += [f"    {line}" for line in _more_lines(end)]
    lines += [f"  {line}" for line in (*_place(end, cwd), *_related(end, cwd))]
    if verdict.blamed_by:
        lines.append(f"  {ranks_words(verdict.blamed_by)} {_verb(verdict.blamed_by, 'name')} it in their errors")
    lines += [f"  {line}" for line in _followers(verdict.followers)]
    lines += [] if end.failed else [f"  {_EARLY_HINT}"]
    lines += [f"  {unwritten_words(unwritten)}"] if unwritten else []
    whole = f"the verdict: {run_dir}/verdict.json" if kept else "there is no verdict.json"
    lines += [f"  its output: {run_dir}/ranks/{end.rank}.err; {whole}"]
    return [printable(line) for line in lines]


def unwritten_words(reason: str) -> str:
    """What follows from a run directory that could not be written."""
    return f"the run directory could not be written ({reason}): output, records and checkpoints may be cut short"


def rank_name(end: RankEnd, hosts: Mapping[str, str]) -> str:
    """`rank 3`; of several nodes `rank 3 on n1`, and `rank 3 on n1 (node 1)` where another node has that host."""
    if not hosts:
        return f"rank {end.rank}"
    shared = any(host == end.host for node, host in hosts.items() if node != end.node)
    return f"rank {end.rank} on {end.host}{f' (node {end.node})' if shared else ''}"


def printable(line: str) -> str:
    """The line without what a terminal would obey: escape sequences and control characters become visible."""
    shown = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in line.expandtabs(4))
    return "".join(shown)


def headline(culprit: RankEnd) -> str:
    """`failed first: exit code 7`; of a rank that has not failed, that it left too early."""
    return f"failed first: {how_it_ended(culprit)}" if culprit.failed else f"ended first, with {how_it_ended(culprit)}"


def how_it_ended(end: RankEnd) -> str:
    """`ValueError: bad batch (exit code 1)`, `killed by SIGKILL, ...`, `exit code 7`."""
    return _how_it_ended(end) if end.recorded else f"{_how_it_ended(end)}; it left no record"


def _how_it_ended(end: RankEnd) -> str:
    if end.signal is not None:
        late = " after its script had ended" if end.after_end else ""
        return f"killed by {end.signal}{late}{', ' + end.note if end.note else ''}"
    if not end.failed:
        return "exit code 0, while the others still needed it"
    if end.code is None:
        return "its process vanished without an exit record (killed?)"
    note = f"; killed {end.note}" if end.note else ""
    if end.type in (None, "SystemExit"):
        return f"exit code {end.code}{_asked(end)}{note}"
    kind, message, where = end.type, end.message, ""
    inner = _CAUGHT.match(message)
    if inner:  # torch raises the error of a DataLoader worker, or of a replica, again in the main process
        kind, where = inner[1], f" in {inner[2]}"
        message = inner[3].rstrip().rpartition("\n")[2].partition(": ")[2]
    if _behind(end, _RAISED):
        where = " in a worker process"
    detail = _first_line(message)
    before = "".join(f"; before it {other['message']}" for other in _behind(end, _ENDED)[:1])
    return f"{kind}{': ' + detail if detail else ''}{where} (exit code {end.code}){before}{note}"


def _behind(end: RankEnd, how: str) -> list[Mapping[str, Any]]:
    return [other for other in end.related if other["how"] == how]


def _asked(end: RankEnd) -> str:
    """What the SystemExit said, where the exit code alone does not."""
    if end.type is None or end.message in ("", str(end.code)):
        return ""
    if _NUMBER.fullmatch(end.message) and int(end.message) & 0xFF == end.code:
        return f" (sys.exit({end.message}), of which 8 bits count)"
    return f": {_first_line(end.message)}"


def _first_line(message: str) -> str:
    return _bounded(message.strip().partition("\n")[0])


def _bounded(line: str) -> str:
    return line if len(line) <= _WIDEST else f"{line[: _WIDEST - 60]} ... {line[-55:]}"


def _more_lines(end: RankEnd) -> list[str]:
    """What a message of several lines says after the first; after an abort, the last words on stderr."""
    if end.signal is not None:
        return _last_words(end.words) if end.signal == "SIGABRT" else []
    message = "" if _CAUGHT.match(end.message) else end.message.strip()
    rest = [line.rstrip() for line in message.split("\n")[1:] if line.strip()]
    left = len(rest) - _LINES
    return [_bounded(line) for line in rest[:_LINES]] + ([f"... {left} more lines"] if left > 0 else [])


def _last_words(words: str) -> list[str]:
    """From C++'s `terminate called ...` on, else the last lines, without Python's own stack."""
    said = words.partition("Fatal Python error:")[0]
    lines = [line.rstrip() for line in said.split("\n") if line.strip()]
    called = [number for number, line in enumerate(lines) if line.startswith("terminate called")]
    shown = lines[called[-1] :][:_LAST_WORDS] if called else lines[-_LAST_WORDS:]
    return [_bounded(line) for line in shown]


def _related(end: RankEnd, cwd: Path | None) -> list[str]:
    """`caused by KeyError: 'x' (train.py:12)`."""
    lines = []
    for other in end.related:
        if other["how"] in (_RAISED, _ENDED):
            continue
        detail, where = _first_line(other["message"]), other["where"]
        at = f" ({_short(where['file'], cwd)}:{where['line']})" if where is not None else ""
        lines.append(f"{other['how']} {other['type']}{': ' + detail if detail else ''}{at}")
    return lines


def _place(end: RankEnd, cwd: Path | None) -> list[str]:
    """The last frames of the traceback, the script's line among them."""
    inner = _CAUGHT.match(end.message)
    frames = list(_FRAME.finditer(_CHAIN.split(inner[3] if inner else end.traceback)[-1]))
    shown = [
        (f["file"], int(f["line"]), f["function"], f["text"] or "")
        for f in frames[-(_FRAMES if end.signal is None else len(frames)) :]
    ]
    where = None if inner else end.where
    if where is not None and (_behind(end, _ENDED) or _GONE.match(end.message)):  # where its end was met tells nothing
        shown = []
    for other in _behind(end, _RAISED):
        if other["where"] is not None:  # how the pool handed it on tells nothing
            place = other["where"]
            shown = [(place["file"], place["line"], place["function"], place["text"])]
    if where is not None and not any((where["file"], where["line"]) == frame[:2] for frame in shown):
        shown.insert(0, (where["file"], where["line"], where["function"], where["text"]))
    lines = []
    for file, line, function, text in shown:
        lines.append(f"{_short(file, cwd)}:{line} in {function}")
        lines += [f"    {text.strip()}"] if text.strip() else []
    return lines


def _short(file: str, cwd: Path | None) -> str:
    path = Path(file)
    return str(path.relative_to(cwd)) if cwd is not None and path.is_relative_to(cwd) else file


def _followers(followers: Sequence[Follower]) -> Iterable[str]:
    """One line for each way of following, with the shortest delay of its ranks."""
    for how in dict.fromkeys(follower.how for follower in followers):
        alike = [follower for follower in followers if follower.how == how]
        ranks = sorted(follower.rank for follower in alike)
        if how == UNSTARTED:
            they = "it" if len(ranks) == 1 else "they"
            yield f"{spans_words(ranks)} {_verb(ranks, 'was', 'were')} ended before {they} started"
            continue
        if how == UNRECORDED:
            yield f"{spans_words(ranks)} {how}"
            continue
        soonest = min(follower.delay_ns or 0 for follower in alike) / 1e9
        when = f"{soonest:.3f} s later" if soonest >= 0.0005 else "at the same time" if soonest > -0.0005 else "noted"
        yield f"{when} {ranks_words(ranks)} {_verb(ranks, 'was', 'were') + ' ' if how.startswith('ended') else ''}{how}"


def _verb(ranks: Sequence[int], one: str, many: str | None = None) -> str:
    if many is None:
        one, many = one + "s", one
    return one if len(ranks) == 1 else many


def ranks_words(ranks: Sequence[int]) -> str:
    """`rank 3`, `ranks 0, 1 and 2`, `ranks 0, 1, 2, 3, 4, 5, 6, 7 and 56 more`."""
    names = [str(rank) for rank in sorted(ranks)]
    if len(names) == 1:
        return f"rank {names[0]}"
    if len(names) > 9:
        return f"ranks {', '.join(names[:8])} and {len(names) - 8} more"
    return f"ranks {', '.join(names[:-1])} and {names[-1]}"


def spans_words(ranks: Sequence[int]) -> str:
    """`ranks 2 and 4 to 15`; as `ranks_words` where that is shorter, or has as many parts."""
    spans: list[tuple[int, int]] = []
    for rank in sorted(ranks):
        if spans and spans[-1][1] == rank - 1:
            spans[-1] = (spans[-1][0], rank)
        else:
            spans.append((rank, rank))
    parts = [str(first) if first == last else f"{first} to {last}" for first, last in spans]
    if len(parts) > _MOST_SPANS or len(ranks) - len(spans) < 2:
        return ranks_words(ranks)
    return f"ranks {', '.join(parts[:-1])} and {parts[-1]}" if len(parts) > 1 else f"ranks {parts[0]}"


def verdict_json(verdict: Verdict | None, code: int, ends: Sequence[RankEnd], **facts: Any) -> dict[str, Any]:
    """What `verdict.json` holds (docs/wire.md)."""
    values: dict[str, Any] = {"format": 1, "exit_code": code, **facts, "culprit": None, "followers": []}
    if verdict is not None:
        values["culprit"] = asdict(verdict.culprit) | {"how": how_it_ended(verdict.culprit)}
        values["culprit"]["blamed_by"] = list(verdict.blamed_by)
        values["followers"] = [
            {"rank": f.rank, "how": f.how, "seconds_later": None if f.delay_ns is None else round(f.delay_ns / 1e9, 6)}
            for f in verdict.followers
        ]
    return values | {"ranks": [asdict(end) for end in sorted(ends, key=lambda end: end.rank)]}
