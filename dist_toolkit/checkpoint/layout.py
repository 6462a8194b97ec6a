"""Names in a checkpoint directory, format 1. Standard library only."""

from __future__ import annotations

import re

FORMAT = 1
MANIFEST = "manifest.json"
MANIFEST_BYTES = 1 << 30
"""A larger manifest is neither written nor read: this one has about ten million chunks."""
ATTEMPT = "attempt"
"""Holds the token of the save that made the directory: how ranks see that they share it."""
ROOT_ATTEMPT = ".attempt"
"""The same in an object store, for the whole place."""

CONVERTED = "converted"
"""Stands for the strategy's name in a checkpoint that was made of another program's: any strategy takes it over."""

_STEP = re.compile(r"step-([0-9]{8,})(\.tmp|\.old|\.del|(\.aside)(?:\.([2-9]|[1-9][0-9]{1,5}))?)?")
_RANK_FILE = re.compile(r"rank-[0-9]{5,}(-[0-9a-f]{16})?\.safetensors")


def step_dir(step: int) -> str:
    """The directory of a committed checkpoint."""
    return f"step-{step:08d}"


def temporary_dir(step: int) -> str:
    """Where a checkpoint is written before it is committed; left behind by a save that was killed."""
    return step_dir(step) + ".tmp"


def replaced_dir(step: int) -> str:
    """Where a committed checkpoint stands while the same step is saved again: still a checkpoint if that is killed."""
    return step_dir(step) + ".old"


def deleted_dir(step: int) -> str:
    """Where retention moves a checkpoint before it deletes the files."""
    return step_dir(step) + ".del"


def aside_dir(step: int, number: int = 1) -> str:
    """Where a checkpoint is kept that a run has left behind: it went back to an older one and saved again."""
    return f"{step_dir(step)}.aside{'' if number == 1 else f'.{number}'}"


def aside_number(name: str, step: int) -> int:
    """Which of those set aside of this step has this name; 0 if none."""
    match = _STEP.fullmatch(name)
    return int(match[4] or 1) if match and match[3] and int(match[1]) == step else 0


def parse_dir(name: str) -> tuple[int, str] | None:
    """(step, suffix) of a directory name of ours, suffix one of '', .tmp, .old, .del, .aside; None for others."""
    match = _STEP.fullmatch(name)
    return (int(match[1]), match[3] or match[2] or "") if match else None


def rank_file(rank: int, token: str = "") -> str:
    """The file that a rank writes; no two ranks write one path, and with its `token` no two saves either."""
    return f"rank-{rank:05d}{'-' if token else ''}{token}.safetensors"


def is_rank_file(name: str) -> bool:
    """Whether a manifest may name this file."""
    return _RANK_FILE.fullmatch(name) is not None


def token_of(name: str) -> str:
    """The token of the save in the name of a data file; '' if there is none."""
    match = _RANK_FILE.fullmatch(name)
    return (match[1] or "")[1:] if match else ""
