"""Names in a checkpoint directory, format 1. Standard library only."""

from __future__ import annotations

import re

FORMAT = 1
MANIFEST = "manifest.json"
ATTEMPT = "attempt"
"""Holds the token of the save that made the directory: how ranks see that they share it."""

_STEP = re.compile(r"step-([0-9]{8,})(\.tmp|\.old|\.del|\.aside)?")
_RANK_FILE = re.compile(r"rank-[0-9]{5,}\.safetensors")


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


def aside_dir(step: int) -> str:
    """Where a checkpoint is kept that a run has left behind: it went back to an older one and saved again."""
    return step_dir(step) + ".aside"


def parse_dir(name: str) -> tuple[int, str] | None:
    """(step, suffix) of a directory name of ours, suffix one of '', .tmp, .old, .del, .aside; None for others."""
    match = _STEP.fullmatch(name)
    return (int(match[1]), match[2] or "") if match else None


def rank_file(rank: int) -> str:
    """The file that a rank writes; no two ranks write one path."""
    return f"rank-{rank:05d}.safetensors"


def is_rank_file(name: str) -> bool:
    """Whether a manifest may name this file."""
    return _RANK_FILE.fullmatch(name) is not None
