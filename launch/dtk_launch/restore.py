"""The source tree of a record, made again in a folder of its own: a git worktree, the diff, the untracked files."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dtk_launch.errors import PlanError
from dtk_launch.redaction import MARK


def check(tree: Mapping[str, Any], folder: Path) -> None:
    """Raise PlanError unless the tree was recorded whole and `folder` is free for it."""
    if "why" in tree or not re.fullmatch(r"[0-9a-f]{40,64}", tree["commit"] or ""):
        raise PlanError(f"the tree was not recorded: {tree.get('why', 'it had no commit')}; check it out by hand")
    if tree["diff_digest"] is None:
        raise PlanError(f"the tree was not recorded whole ({tree['left_out'][0]}); check out {tree['commit']} by hand")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise PlanError(f"{folder} is not empty; pass a folder that is not there yet")
    if not Path(tree["root"]).is_dir():
        raise PlanError(f"the repository {tree['root']} is not there; clone it to that place")
    for name in tree["untracked"]:
        if Path(name).is_absolute() or ".." in Path(name).parts or ".git" in Path(name).parts:
            raise PlanError(f"the record names an untracked file {name!r}, which is not inside the tree")


def restore(tree: Mapping[str, Any], folder: Path) -> tuple[str, ...]:
    """Make the tree in `folder` and return what is not as it was. Raises PlanError as `check` does, or if git refuses.

    The repository gets a worktree entry; `git worktree remove` takes it away again.
    """
    check(tree, folder)
    _git(Path(tree["root"]), "worktree", "add", "--detach", str(folder), tree["commit"])
    try:
        _fill(tree, folder)
    except PlanError:
        _git(Path(tree["root"]), "worktree", "remove", "--force", str(folder))
        raise
    notes = [f"left out of the record: {line}" for line in tree["left_out"]]
    notes += [f"{name} holds {MARK} for a secret" for name, text in tree["untracked"].items() if MARK in text]
    if MARK in tree["diff"]:
        notes.append(f"the changes hold {MARK} for a secret")
    if tree["submodules"]:
        notes.append(f"submodules are empty; git -C {folder} submodule update --init --recursive")
    return tuple(notes)


def _fill(tree: Mapping[str, Any], folder: Path) -> None:
    """The changes and the untracked files, over the commit."""
    if tree["diff"]:
        _git(folder, "apply", "--whitespace=nowarn", "-", given=tree["diff"].encode(tree["diff_encoding"]))
    for name, text in tree["untracked"].items():
        path = folder / name
        if not path.resolve().is_relative_to(folder.resolve()):  # a link of the tree that leads out
            raise PlanError(f"the untracked file {name!r} of the record would be written outside {folder}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode())


def _git(folder: Path, *words: str, given: bytes | None = None) -> None:
    try:
        done = subprocess.run(("git", "-C", str(folder), *words), input=given, capture_output=True, check=False)
    except OSError as error:
        raise PlanError(f"git cannot be run: {error.strerror}") from None
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip()
        raise PlanError(f"git {words[0]} failed: {said}")
