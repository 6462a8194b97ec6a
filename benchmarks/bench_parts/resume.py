"""`--resume`: the records of an interrupted run that are kept, and whether it can be gone on with."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .arguments import UsageError
from .records import Record, Records, read_records

_SAME = (
    "options", "cpu", "cores", "gpus", "memory_gib", "system", "python", "torch", "dist_toolkit", "libraries",
    "environment", "filesystem", "commit", "uncommitted_changes", "uncommitted_diff", "memory_limit_gib",
    "script_sha256",
)  # fmt: skip
_INSTALLED = {"checkpoint": "methods", "overhead": "loops", "advise": "strategies"}
"""Of a benchmark, the option from which a library that is not installed is left out."""
_ANEW = "pass another --out, or --overwrite in the place of --resume"


def kept(folder: Path, machine: Record, elsewhere: bool = False) -> list[dict[str, Any]]:
    """The records of the run in `folder`.

    Args:
        machine: the first record of a run with the options and on the machine of today.
        elsewhere: whether it will be another machine and environment, so that only the options can be compared.

    Raises:
        UsageError: there is no such run, or it was made with other options, on another machine or of other code.
    """
    try:
        records = read_records(folder)
    except OSError:
        raise UsageError(
            f"--resume, but {folder} holds no results.jsonl; leave --resume out, or pass its --out"
        ) from None
    except ValueError as error:
        raise UsageError(f"--resume: {error}; {_ANEW}") from None
    if records[0].get("benchmark") != machine.get("benchmark"):
        other = records[0].get("benchmark", "of another version")
        raise UsageError(f"--resume: {folder} is of dtk bench {other}; {_ANEW}")
    then, now = records[0], json.loads(json.dumps(machine))
    if elsewhere:
        then, now = _options(then), _options(now)
    found = list(differences(then, now))
    if found:
        raise UsageError(f"--resume: {folder} was measured with {'; '.join(found)}. Make them equal, or {_ANEW}")
    return records


def _options(machine: Record) -> Record:
    """Those that do not depend on the libraries that are installed."""
    varies = _INSTALLED.get(machine["benchmark"])
    return {"options": {name: value for name, value in machine.get("options", {}).items() if name != varies}}


def is_complete(records: Records) -> bool:
    """Whether they are those of a run that has nothing left to measure."""
    return bool(records) and records[-1].get("status") == "complete"


def differences(then: Record, now: Record) -> Iterator[str]:
    """What two records of kind `machine` do not share, in words."""
    for name in _SAME:
        if name == "options":
            before, after = then.get(name, {}), now.get(name, {})
            for option in sorted({*before, *after}):
                if before.get(option) != after.get(option):
                    yield f"--{option.replace('_', '-')} {_show(before.get(option))}, now {_show(after.get(option))}"
        elif then.get(name) != now.get(name):
            yield f"{name.replace('_', ' ')} {_show(then.get(name))}, now {_show(now.get(name))}"


def _show(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value)) or "none"
    return str(value)
