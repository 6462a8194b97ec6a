"""Scripts of other libraries that leave with exit code 0 when they are told to stop: were they done?

What each does is in docs/preemption.md. A script that nothing here knows is believed: exit code 0 is the end.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from dtk_launch.plan import Target
from dtk_launch.rank_files import RankRecord

_LIGHTNING = "SIGTERMException"  # a SystemExit without a code, raised after the batch in which SIGTERM came
_STATES = "checkpoint-*/trainer_state.json"


@dataclass(frozen=True)
class TrainerState:
    """What a checkpoint of Hugging Face's Trainer says of itself."""

    step: int
    steps: int
    """Of the whole training."""
    folder: Path
    time_ns: int
    """Unix time at which it was written."""


def stopped_early(target: Target, cwd: Path, records: Iterable[RankRecord], since_ns: int) -> str:
    """Words for how the script left its training after `since_ns`, when it was told to; '' if nothing says so."""
    if any(record.exit is not None and record.exit.type == _LIGHTNING for record in records):
        return "Lightning left its training on the signal"
    state = newest_trainer_state(target, cwd)
    if state is not None and state.time_ns >= since_ns and state.step < state.steps:
        return f"its Trainer saved step {state.step} of {state.steps} in {state.folder}"
    return ""


def newest_trainer_state(target: Target, cwd: Path) -> TrainerState | None:
    """The newest checkpoint of a Trainer in the folders that the script's arguments name, here, or in a folder here."""
    states = (_read(path) for path in _candidates(target, cwd))
    return max((state for state in states if state is not None), key=lambda state: state.time_ns, default=None)


def _candidates(target: Target, cwd: Path) -> Iterator[Path]:
    words = (word.rpartition("=")[2] for word in target.args)
    named = {cwd / word for word in words if word and "\0" not in word and len(word) < 1024}
    for folder in {cwd, *named}:
        try:
            yield from folder.glob(_STATES)
        except (OSError, ValueError):
            continue
    yield from cwd.glob(f"*/{_STATES}")


def _read(path: Path) -> TrainerState | None:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        step, steps = int(values["global_step"]), int(values["max_steps"])
        return TrainerState(step, steps, path.parent, path.stat().st_mtime_ns)
    except (OSError, ValueError, KeyError, TypeError):
        return None
