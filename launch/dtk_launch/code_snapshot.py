"""`dtk submit --snapshot`: the code as it is now, kept in the run directory, and the job that runs from there.

`snapshots/<N>/tree` is the copy, `snapshots/<N>/snapshot.json` what it was copied from. `docs/wire.md` has both.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from dtk_launch import snapshot, submitted
from dtk_launch.code_copy import complete, copy_code
from dtk_launch.code_files import CodeFiles, amount, find_repository, list_code
from dtk_launch.code_paths import Moves, path_line
from dtk_launch.errors import PlanError
from dtk_launch.options import SubmitOptions
from dtk_launch.redaction import known_secrets
from dtk_launch.script import module_file
from dtk_launch.streams import json_text

_LINKS_NAMED = 4


@dataclass(frozen=True)
class Code:
    """A snapshot that is to be made in `folder`, and what a job needs to run from it."""

    folder: Path
    files: CodeFiles
    source: Path
    """The script in the tree."""
    script: str
    """As the job names it: a path in the copy where that of the submission would lead elsewhere."""
    workdir: Path
    """The folder that the job starts in: that of the submission, in the copy if it is in the tree."""
    setup: tuple[str, ...] = ()
    env: tuple[str, ...] = ()

    @property
    def tree(self) -> Path:
        """The copy."""
        return self.folder / submitted.TREE

    def options(self, options: SubmitOptions) -> SubmitOptions:
        """The options of the job."""
        return replace(options, script=self.script, env=self.env)


def plan_code(
    options: SubmitOptions, cwd: Path, run_dir: Path, environ: Mapping[str, str], paths: Iterable[str]
) -> Code:
    """Decide what is copied and where the job runs. Lists the tree and writes nothing.

    `paths` are further folders that Python imports from, such as those of packages that are installed in place. Raises
    PlanError, also for a script that the copy would not hold.
    """
    cwd, run_dir = cwd.resolve(), Path(os.path.normpath(run_dir))
    source = _source(options, cwd)
    files = _files(source, cwd, run_dir.resolve(), options.module)
    _check_held(options, source, files)
    folder = run_dir / "snapshots" / str(_next(run_dir / "snapshots"))
    moves = Moves(files.root, folder / submitted.TREE, frozenset(files.files))
    named = Path(os.path.normpath(cwd / options.script))
    relative = not Path(options.script).is_absolute() and named.is_relative_to(files.root)
    inside = cwd.is_relative_to(files.root)
    return Code(
        folder=folder,
        files=files,
        source=source,
        script=options.script if options.module or (inside and relative) else str(moves.moved(source)),
        workdir=moves.moved(cwd) if inside else cwd,
        setup=path_line(moves, environ.get("PYTHONPATH", ""), paths),
        env=tuple(moves.moved_pair(pair) for pair in options.env),
    )


def make(code: Code, options: SubmitOptions, environ: Mapping[str, str]) -> str:
    """Copy the code, with the record of its source; a line that says so. Raises PlanError, and leaves nothing then."""
    known = known_secrets(options.args, options.env, environ)
    snapshots = code.folder.parent
    with complete(code.folder) as partial:
        (snapshots / ".gitignore").write_text("*\n")  # or each snapshot would be in the list of the next
        tree = snapshot.take(code.source.parent, snapshots.parent, None if options.module else code.source, known)
        copy_code(code.files, partial / submitted.TREE)
        held = partial / submitted.TREE / code.source.relative_to(code.files.root)
        if not held.exists():
            raise PlanError(f"{code.source} was removed while it was copied; submit again")
        if code.workdir.is_relative_to(code.tree):
            (partial / code.workdir.relative_to(code.folder)).mkdir(parents=True, exist_ok=True)
        values = {
            "format": submitted.FORMAT,
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "root": str(code.files.root),
            "files": len(code.files.files),
            "bytes": code.files.size,
            "links": list(code.files.links),
            "tree": tree,
        }
        (partial / submitted.RECORD).write_text(json_text(values), encoding="utf-8", errors="backslashreplace")
    return _said(code)


def discard(code: Code) -> None:
    """Take away a snapshot that no job will use."""
    shutil.rmtree(code.folder, ignore_errors=True)


def _source(options: SubmitOptions, cwd: Path) -> Path:
    if not options.module:
        return (cwd / options.script).resolve()
    file = module_file(options.script, cwd)
    if file is None:
        raise PlanError(f"--snapshot cannot find the file of the module {options.script!r}; pass the path of a script")
    return file.resolve()


def _files(source: Path, cwd: Path, run_dir: Path, module: bool) -> CodeFiles:
    """The tree is the repository of the working folder, else that of the script; without one the script's folder."""
    if shutil.which("git") is None:
        raise PlanError("--snapshot asks git which files are code, and git is not on PATH; install it, or drop it")
    root = find_repository(cwd)
    if root is None and not module:
        root = find_repository(source.parent)
    top = root or (cwd if module else source.parent)
    if not source.is_relative_to(top):
        raise PlanError(
            f"--snapshot copies the tree {top}, and {source} is outside of it; start dtk submit in the tree of the "
            "script, or drop --snapshot"
        )
    return list_code(top, root is not None, run_dir)


def _check_held(options: SubmitOptions, source: Path, files: CodeFiles) -> None:
    name = str(source.relative_to(files.root))
    if name in files.files:
        return
    above = next((link for link in files.links if name == link or name.startswith(f"{link}/")), "")
    why = f"it is in {above}, which is ignored by git or made by dtk or Python" if above else "git does not list it"
    raise PlanError(f"--snapshot would not hold {options.script}: {why}; move it, or drop --snapshot")


def _next(snapshots: Path) -> int:
    """One more than the highest number that is taken, by one that is being made too."""
    try:
        names = [re.fullmatch(r"(\d+)|\.(\d+)\.partial", path.name) for path in snapshots.iterdir()]
    except FileNotFoundError:
        return 1
    except OSError as error:
        raise PlanError(f"{snapshots} cannot be read: {error.strerror}; pass another --run-dir") from None
    return 1 + max((int(match[1] or match[2]) for match in names if match), default=0)


def _said(code: Code) -> str:
    links, number = code.files.links, len(code.files.files)
    named = ", ".join(links[:_LINKS_NAMED]) + (f" and {len(links) - _LINKS_NAMED} more" if len(links) > 4 else "")
    reached = f"; links to what is no code: {named}" if links else ""
    return f"the job runs from {code.tree}, {number} files ({amount(code.files.size)}) of {code.files.root}{reached}"
