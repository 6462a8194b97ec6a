"""`nodes/<node>.silent` in the run directory: what a node whose ranks make no step tells the first node of them."""

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


def _place(place: Place | None) -> dict[str, Any] | None:
    return None if place is None else {**asdict(place), "kind": place.kind.name}


def _standing(said: dict[str, Any]) -> Standing:
    workers = tuple(place for worker in said["workers"] if (place := _read_place(worker)) is not None)
    return Standing(said["rank"], _read_place(said["place"]), workers, said["busy"])


def _read_place(said: dict[str, Any] | None) -> Place | None:
    if said is None:
        return None
    user = Frame(**said["user"]) if said["user"] else None
    file, function = said["function"]
    return Place(Kind[said["kind"]], said["call"], user, (file, function), said["text"])
