"""A hang in words, for people and as JSON: equal places grouped, the odd rank first. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dtk_launch.diagnose.stacks import Frame
from dtk_launch.diagnose.waits import FOR_RANKS, Kind, Place
from dtk_launch.diagnose.words import ranks_words

# one rank, several
_VERBS = {
    Kind.COLLECTIVE: ("waits in", "wait in"),
    Kind.DATA: ("waits for the next batch of", "wait for the next batch of"),
    Kind.BACKWARD: ("is in", "are in"),
    Kind.COMPILE: ("compiles in", "compile in"),
    Kind.FILES: ("reads or writes files in", "read or write files in"),
    Kind.PROGRAM: ("waits for a program in", "wait for a program in"),
    Kind.NETWORK: ("waits for the network in", "wait for the network in"),
    Kind.LOCK: ("waits for another thread in", "wait for another thread in"),
    Kind.SLEEP: ("sleeps in", "sleep in"),
    Kind.THREAD: ("waits for another thread in", "wait for another thread in"),
    Kind.CODE: ("is in", "are in"),
    Kind.ENDING: ("waits for", "wait for"),
    Kind.STOPPED: (
        "is stopped (SIGSTOP; kill -CONT lets it go on)",
        "are stopped (SIGSTOP; kill -CONT lets them go on)",
    ),
}
_SAID, _LISTED = 3, 8  # groups in the first line, and in all; hang.json has every one
_ENDED = ("has ended its script and ", "have ended their scripts and ")
_BUSY = ("keeps computing in", "keep computing in")


@dataclass(frozen=True)
class Standing:
    """Where a rank is, and where those of its forked processes are that are in code of the user's.

    `busy`: at work. `on`: the node, of several, as it is called in words. `moves`: it gets somewhere, and `always_in`
    is the innermost function of the user's code that it was in at all looks. `failed`: the exception that ended its
    script.
    """

    rank: int
    place: Place | None
    workers: tuple[Place, ...] = ()
    busy: bool = False
    on: str = ""
    moves: bool = False
    always_in: Frame | None = None
    failed: str = ""

    @property
    def odd(self) -> bool:
        """Whether it does not wait for other ranks."""
        return self.busy or self.place is None or self.place.kind not in FOR_RANKS

    @property
    def line(self) -> tuple[object, ...]:
        """Equal for ranks that are said in one."""
        workers = tuple(sorted({repr(w.line) for w in self.workers}))
        return (self.place.line if self.place else None, workers, self.busy, self.failed)


@dataclass(frozen=True)
class Group:
    """Ranks in the same place."""

    ranks: tuple[int, ...]
    standing: Standing
    nodes: tuple[str, ...] = ()
    """Where they are, of several."""


def groups_of(standings: Sequence[Standing]) -> list[Group]:
    """Ranks in the same place together, the largest group first."""
    found: dict[tuple[object, ...], list[Standing]] = {}
    for standing in sorted(standings, key=lambda standing: standing.rank):
        found.setdefault(standing.line, []).append(standing)
    groups = [
        Group(tuple(s.rank for s in alike), alike[0], tuple(dict.fromkeys(s.on for s in alike if s.on)))
        for alike in found.values()
    ]
    return sorted(groups, key=lambda group: (-len(group.ranks), group.ranks))


def odd_ones(groups: Sequence[Group]) -> list[Group]:
    """The groups that the others wait for: those in no collective, else those in another one than most. Or none."""
    odd = [group for group in groups if group.standing.odd]
    if odd:
        return odd if len(odd) < len(groups) else []
    if len(groups) < 2 or len(groups[0].ranks) == len(groups[1].ranks):
        return []
    return list(groups[1:])


def group_words(group: Group, cwd: Path | None) -> str:
    """`ranks 0, 1 and 3 wait in all_reduce (train.py:41)`, `rank 1 on b (node 1) is in __getitem__ (data.py:88)`."""
    standing, many = group.standing, len(group.ranks) > 1
    on = f" on {group.nodes[0]}" if len(group.nodes) == 1 else f" on {len(group.nodes)} nodes" if group.nodes else ""
    ended = ""
    if standing.failed:
        ended = f"{'have' if many else 'has'} failed ({standing.failed}) and "
    elif standing.place is not None and standing.place.kind is Kind.ENDING:
        ended = _ENDED[many]
    where = ended + place_words(standing.place, many, cwd, standing.busy)
    said = f"{ranks_words(group.ranks)}{on} {where}"
    for worker in standing.workers:
        said += f"; a worker process {place_words(worker, False, cwd)}"
    return said


def place_words(place: Place | None, many: bool, cwd: Path | None, busy: bool = False) -> str:
    """`waits in all_reduce (train.py:41)`, `is in __getitem__ (data.py:88)`."""
    if place is None:
        return "tell nothing" if many else "tells nothing"
    call = place.call or (place.user.function if place.user else place.function[1])
    verb = (_BUSY if busy and place.kind in (Kind.CODE, Kind.BACKWARD) else _VERBS[place.kind])[many]
    at = f" ({short(place.user.file, cwd)}:{place.user.line})" if place.user else ""
    return f"{verb} {call}{at}".rstrip()


def short(file: str, cwd: Path | None) -> str:
    """Relative to the current folder where it is below it."""
    path = Path(file)
    return str(path.relative_to(cwd)) if cwd is not None and path.is_relative_to(cwd) else file


def summary(standings: Sequence[Standing], cwd: Path | None) -> list[str]:
    """A line for the odd ranks, or for all where none is odd; then the rest, each place with the text of its line.

    Where the first line has several places, each text says whose it is.
    """
    groups = groups_of(standings)
    first = odd_ones(groups) or groups
    said = "; ".join(group_words(group, cwd) for group in first[:_SAID])
    if len(first) > _SAID:
        said += f"; and {len(first) - _SAID} places more"
    lines = [said]
    for group in [*first, *(group for group in groups if group not in first)][:_LISTED]:
        place = group.standing.place
        if group not in first[:_SAID]:
            lines.append(group_words(group, cwd))
        whose = f"{ranks_words(group.ranks)}: " if group in first[:_SAID] and len(first) > 1 else ""
        lines += [f"    {whose}{place.text}"] if place is not None and place.text else []
    return lines


def held_up_lines(standings: Sequence[Standing], cwd: Path | None) -> list[str]:
    """What can be said of ranks at work for which the others wait."""
    lines = []
    for standing in standings:
        if standing.moves:
            frame, on = standing.always_in, f" on {standing.on}" if standing.on else ""
            where = f", at each look in {frame.function} ({short(frame.file, cwd)}:{frame.line})" if frame else ""
            lines.append(f"rank {standing.rank}{on} is at work{where}")
    still = groups_of([standing for standing in standings if not standing.moves])
    return [*lines[:_LISTED], *(group_words(group, cwd) for group in still[:_LISTED])]


def hang_json(standings: Sequence[Standing], stacks: Mapping[int, Any], **facts: Any) -> dict[str, Any]:
    """What `hang.json` holds (docs/wire.md)."""
    groups = groups_of(standings)
    odd = [rank for group in odd_ones(groups) for rank in group.ranks]
    return {
        "format": 1,
        **facts,
        "odd": sorted(odd),
        "groups": [_group_json(group) for group in groups],
        "stacks": {str(rank): stack for rank, stack in sorted(stacks.items())},
    }


def _group_json(group: Group) -> dict[str, Any]:
    standing = group.standing
    where = {"ranks": list(group.ranks), "nodes": list(group.nodes), **_place_json(standing.place)}
    return {
        **where,
        "busy": standing.busy,
        "failed": standing.failed,
        "workers": [_place_json(worker) for worker in standing.workers],
    }


def _place_json(place: Place | None) -> dict[str, Any]:
    if place is None:
        return {"kind": None, "call": "", "file": None, "line": None, "function": None, "text": ""}
    user = place.user
    where = {"file": user.file, "line": user.line, "function": user.function} if user else {}
    base: dict[str, Any] = {"kind": place.kind.value, "call": place.call, "file": None, "line": None}
    return {**base, "function": None, **where, "text": place.text}
