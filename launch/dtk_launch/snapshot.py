"""The source tree at this moment: commit, diff, untracked source. Bounded in time and size; what is left out is said.

Runs git. Nothing here is an error: without git, without a repository or in one too slow, the snapshot says so.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dtk_launch.git import Reply, ask
from dtk_launch.redaction import hide_diff, hide_source, secret_file
from dtk_launch.runfolder import is_run

SECONDS = (1.0, 1.5, 0.5)
"""For: where is the repository; its state; a smaller diff, if that one is too large."""
DIFF_BYTES = 1 << 20
FILE_BYTES = 1 << 18
ALL_FILES_BYTES = 2 << 20
FILES = 500
LOOKED_AT = 5000
LIST_BYTES = 4 << 20
NAMED = 200
"""Files that are left out and named; of more, the number is said."""

_SOURCE = (
    ".py .pyi .toml .yaml .yml .json .cfg .ini .sh .bash .txt .md .rst .c .cc .cpp .cu .cuh .h .hpp .pyx .j2 .sbatch "
    ".slurm .ipynb .gin .jsonnet .proto .sql .r .jl"
)
SOURCE = frozenset(_SOURCE.split())
# The same text whatever the user's settings of diff are, as `git apply` takes it.
_DIFF = (
    *("diff", "--binary", "--no-color", "--no-ext-diff", "--no-textconv", "--no-renames", "--submodule=short"),
    *("--src-prefix=a/", "--dst-prefix=b/", "--no-relative", "--unified=3"),
)


@dataclass
class _Bounded:
    """What has been taken in so far, and what was left out and why."""

    files: dict[str, str] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    size: int = 0

    def leave(self, name: str, why: str) -> None:
        """Note a file that is left out."""
        self.left_out.append(f"{name}: {why}")

    def listed(self) -> list[str]:
        """What was left out, of much the first, and how much more."""
        rest = len(self.left_out) - NAMED
        return self.left_out[:NAMED] + ([f"and {rest} more"] if rest > 0 else [])


def take(folder: Path, run_dir: Path, script: Path | None, known: Iterable[str] = ()) -> dict[str, Any]:
    """The tree around `folder` as plain values; `known` are secrets to be hidden wherever they stand.

    Without a repository it is the script alone, and `why` says what is missing.
    """
    known = tuple(known)
    if shutil.which("git") is None:
        return _without(folder, script, "git is not installed", known)
    top, head = ask(
        folder, (("rev-parse", "--show-toplevel"), ("rev-parse", "--verify", "HEAD")), (1 << 16, 1 << 16), SECONDS[0]
    )
    if not top.ok:
        return _without(folder, script, top.why, known)
    return _repository(Path(os.fsdecode(top.out.rstrip(b"\n"))), head, run_dir, known)


def _without(folder: Path, script: Path | None, why: str, known: tuple[str, ...]) -> dict[str, Any]:
    bounded = _Bounded()
    if script is not None:
        _take_file(folder, os.path.relpath(script, folder), bounded, known)
    return {"why": why, "root": os.fspath(folder), "untracked": bounded.files, "left_out": bounded.listed()}


def _repository(root: Path, head: Reply, run_dir: Path, known: tuple[str, ...]) -> dict[str, Any]:
    """Everything of a repository; its parts are asked for at the same time."""
    base = "HEAD" if head.ok else "4b825dc642cb6eb9a060e54bf8d69288fbee4904"  # git's empty tree, before a first commit
    asked = [(*_DIFF, base), ("status", "--porcelain", "-z", "-uall", "--no-renames")]
    if (root / ".gitmodules").exists():
        asked.append(("submodule", "status", "--recursive"))
    # Patterns of secret files are not given to git: with 30,000 files they cost it half a second.
    diff, status, *submodules = ask(root, asked, (DIFF_BYTES, LIST_BYTES, LIST_BYTES), SECONDS[1])
    bounded = _Bounded()
    names, others = _status(status, bounded)
    if not status.ok:  # which files hold secrets is not known
        diff = Reply(b"", status.why)
    patch, digest = _diff(root, base, diff, names, bounded)
    text, encoding = _decoded(patch)
    of_a_run = _run_folders(root, run_dir)
    for name in others[:LOOKED_AT]:
        if not of_a_run((root / name).parent):
            _take_file(root, name, bounded, known)
    if len(others) > LOOKED_AT:
        bounded.leave(f"{len(others) - LOOKED_AT} more untracked files", f"{LOOKED_AT} were looked at")
    return {
        "root": str(root),
        "commit": head.out.decode().strip() if head.ok else None,
        "changed": names,
        "diff": hide_diff(text, known),
        "diff_encoding": encoding,
        "diff_digest": digest,
        "untracked": bounded.files,
        "submodules": dict(_submodules(submodules[0])) if submodules else {},
        "left_out": bounded.listed(),
    }


def _status(reply: Reply, bounded: _Bounded) -> tuple[list[str], list[str]]:
    """Names of changed files and of untracked ones: `XY name`, where XY is ?? for the latter."""
    if not reply.ok:
        bounded.leave("list of changed and untracked files", reply.why)
    entries = reply.out.split(b"\0")
    lines = [os.fsdecode(entry) for entry in (entries if reply.ok else entries[:-1]) if entry]
    changed = [line[3:] for line in lines if not line.startswith("??")]
    return changed, [line[3:] for line in lines if line.startswith("??")]


def _diff(root: Path, base: str, diff: Reply, changed: list[str], bounded: _Bounded) -> tuple[bytes, str | None]:
    """The diff without files that hold secrets, and its digest: None if it is not all of the rest.

    One that is too large is asked for again, for the source files alone.
    """
    secret = [name for name in changed if secret_file(Path(name).name)]
    for name in secret:
        bounded.leave(name, "its change is left out, as such files hold secrets")
    if diff.ok and not secret:
        return diff.out, hashlib.sha256(diff.out).hexdigest()
    if not diff.ok:
        bounded.left_out.insert(0, f"diff: {diff.why}")
    wanted = [name for name in changed if name not in secret and (diff.ok or _is_source(name))]
    if not wanted or len(wanted) > FILES:
        return b"", None if wanted or not diff.ok else hashlib.sha256(b"").hexdigest()
    (again,) = ask(
        root, [(*_DIFF, base, "--", *(f":(top,literal){name}" for name in wanted))], (DIFF_BYTES,), SECONDS[2]
    )
    if not again.ok:
        bounded.left_out.insert(0, f"diff of the source files: {again.why}")
        return b"", None
    return again.out, hashlib.sha256(again.out).hexdigest() if diff.ok else None


def _decoded(text: bytes) -> tuple[str, str]:
    """The text and its encoding: UTF-8, else Latin-1, which keeps every byte, so that the patch can be applied."""
    try:
        return text.decode("utf-8"), "utf-8"
    except UnicodeDecodeError:
        return text.decode("latin-1"), "latin-1"


def _is_source(name: str) -> bool:
    return Path(name).suffix.lower() in SOURCE or name.endswith(("Makefile", "Dockerfile"))


def _take_file(root: Path, name: str, bounded: _Bounded, known: tuple[str, ...]) -> None:
    path = root / name
    suffix = path.suffix.lower()
    if secret_file(path.name):
        return bounded.leave(name, "such files hold secrets")
    if not _is_source(name):
        return bounded.leave(name, "not source, by its suffix")
    if len(bounded.files) == FILES:
        return bounded.leave(name, f"{FILES} files came before it")
    try:
        if path.is_symlink():
            return bounded.leave(name, "a link")
        size = path.stat().st_size
        if not path.is_file() or size > FILE_BYTES:
            return bounded.leave(name, f"{size} bytes, more than {FILE_BYTES}" if path.is_file() else "not a file")
        if bounded.size + size > ALL_FILES_BYTES:
            return bounded.leave(name, f"{bounded.size} bytes came before it")
        text = path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        return bounded.leave(name, "not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error.strerror))
    bounded.size += size
    bounded.files[name] = hide_source(text, suffix, known)
    return None


def _run_folders(root: Path, run_dir: Path) -> Callable[[Path], bool]:
    """Whether a folder is a run's or below one: a record of a record would grow with every launch."""

    @functools.cache
    def within(folder: Path) -> bool:
        if folder == run_dir or is_run(folder):
            return True
        return folder not in (root, folder.parent) and within(folder.parent)

    return within


def _submodules(reply: Reply) -> Iterator[tuple[str, str]]:
    """` <commit> <path> (<description>)`; + another commit than recorded, - not checked out."""
    for line in _decoded(reply.out)[0].splitlines():
        match = re.fullmatch(r"([ +\-U])([0-9a-f]+) (.*?)( \(.*\))?", line)
        if match:
            words = {"+": " (not the recorded commit)", "-": " (not checked out)", "U": " (in conflict)"}
            yield match[3], match[2] + words.get(match[1], "")
