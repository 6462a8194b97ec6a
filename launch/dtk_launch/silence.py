"""What nodes tell each other of a silence, in the run directory.

`nodes/<node>.silent`: what a node whose ranks make no step tells the first node of them. `hang.json`: what the first
node, which decides for all, tells the others.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dtk_launch.diagnose.hang import NodeState
from dtk_launch.diagnose.hang_words import Standing
from dtk_launch.diagnose.stacks import Frame
from dtk_launch.diagnose.waits import Kind, Place


def to_json(launch: str, state: NodeState, standings: Sequence[Standing]) -> dict[str, Any]:
    """The entry; `launch` is what the nodes of one launch have in common."""
    said = [{**asdict(s), "place": _place(s.place), "workers": [_place(w) for w in s.workers]} for s in standings]
    return {"launch": launch, "time_ns": time.time_ns(), "state": asdict(state), "standings": said}


def read(path: Path, launch: str) -> tuple[int, NodeState, list[Standing]] | None:
    """When it was written, the state and where the ranks are; None without an entry of this launch."""
    try:
        entry = json.loads(path.read_text(encoding="utf-8"))
        if entry["launch"] != launch:
            return None
        state: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in entry["state"].items()
        }
        return int(entry["time_ns"]), NodeState(**state), [_standing(said) for said in entry["standings"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None


class Told:
    """The hang.json of the first node of this launch, followed by another node."""

    def __init__(self, path: Path, launch: str) -> None:
        self._path, self._launch = path, launch
        self._since_ns, self._stamp = time.time_ns(), 0

    def news(self) -> dict[str, Any] | None:
        """A hang that this launch is said to be in, once; None while there is nothing new."""
        try:
            stamp = self._path.stat().st_mtime_ns
            if stamp == self._stamp:
                return None
            self._stamp = stamp
            said: dict[str, Any] = json.loads(self._path.read_text(encoding="utf-8"))
            # nodes of a launch by hand have its name in common with an earlier one
            return said if said["launch"] == self._launch and said["time_ns"] > self._since_ns else None
        except (OSError, ValueError, KeyError, TypeError):
            return None


def _place(place: Place | None) -> dict[str, Any] | None:
    return None if place is None else {**asdict(place), "kind": place.kind.name}


def _standing(said: dict[str, Any]) -> Standing:
    workers = tuple(place for worker in said["workers"] if (place := _read_place(worker)) is not None)
    always_in = Frame(**said["always_in"]) if said["always_in"] else None
    place = _read_place(said["place"])
    return Standing(said["rank"], place, workers, said["busy"], said["on"], said["moves"], always_in, said["failed"])


def _read_place(said: dict[str, Any] | None) -> Place | None:
    if said is None:
        return None
    user = Frame(**said["user"]) if said["user"] else None
    file, function = said["function"]
    return Place(Kind[said["kind"]], said["call"], user, (file, function), said["text"])
