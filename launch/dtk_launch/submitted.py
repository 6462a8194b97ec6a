"""The record that `dtk submit --snapshot` left beside a copy of the code: `snapshots/<N>/snapshot.json`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FORMAT = 1
TREE = "tree"
RECORD = "snapshot.json"


def record_of(folder: Path) -> dict[str, Any] | None:
    """The source tree that the copy around `folder` was made from, with its place as `snapshot`; None outside of one.

    What git says there would be the state of the repository around the run directory, as it is by now.
    """
    for place in (folder, *folder.parents):
        if place.name == TREE and (place.parent / RECORD).is_file():
            return {**_read(place.parent / RECORD), "snapshot": str(place)}
    return None


def _read(file: Path) -> dict[str, Any]:
    try:
        values = json.loads(file.read_bytes())
        if values["format"] == FORMAT and isinstance(values["tree"]["root"], str):
            return dict(values["tree"])
        why = f"{file} is of another dtk"
    except (OSError, ValueError, LookupError, TypeError) as error:
        why = f"{file} cannot be read: {error}"
    return {"why": why, "root": str(file.parent / TREE), "untracked": {}, "left_out": []}
