"""Which files of a source tree are the code of a run, and which are reached by a link. Runs git; changes nothing."""

from __future__ import annotations

import functools
import os
import stat
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from dtk_launch.errors import PlanError
from dtk_launch.git import Reply, ask
from dtk_launch.runfolder import is_run

MAX_BYTES = 100 << 20
MAX_FILES = 20_000
"""Files to copy and links to make."""
SECONDS = 30.0
LIST_BYTES = 16 << 20
NAMED = 3

_FILES = ("ls-files", "-z", "--cached", "--others", "--exclude-standard")
_IGNORED = ("ls-files", "-z", "--others", "--ignored", "--exclude-standard", "--directory")
_JUNK = {".git", "__pycache__", ".pytest_cache", ".mypy_cache", ".ruff_cache", ".ipynb_checkpoints", ".hypothesis"}
_CODE = (".py", ".pyi", ".so", ".pyd")
"""What an import can need although it is ignored: a generated _version.py, a compiled extension."""


_Aside = Callable[[Path], Path | None]


@dataclass(frozen=True)
class CodeFiles:
    """Names below `root`, sorted. Nothing in `files` is below one of `links`."""

    root: Path
    files: tuple[str, ...]
    links: tuple[str, ...]
    """What the copy reaches by a link to the original: ignored entries, the folder of the runs, environments."""
    size: int
    """Bytes in `files`."""


def find_repository(folder: Path) -> Path | None:
    """The top of the git repository that `folder` is in, None if it is in none. Raises PlanError where git refuses."""
    (top,) = ask(folder, (("rev-parse", "--show-toplevel"),), (1 << 16,), SECONDS)
    if top.ok:
        return Path(os.fsdecode(top.out.removesuffix(b"\n")))
    if "not a git repository" in top.why:
        return None
    raise PlanError(
        f"--snapshot asks git which files are code, and there is no answer for {folder}: {top.why}; "
        "mend that, or drop --snapshot"
    )


def list_code(root: Path, repository: bool, run_dir: Path) -> CodeFiles:
    """The code in `root`, as its .gitignore files have it; `repository`: it is the top of one.

    `run_dir` and what else dtk or Python have made (runs, virtual environments, caches) is not code. Raises PlanError
    where git refuses, for files that cannot be looked at, and past MAX_BYTES and MAX_FILES.
    """
    if repository:
        return _code(root, *_listed(root, ()), run_dir)
    with tempfile.TemporaryDirectory(prefix="dtk-git-") as empty:
        (made,) = ask(root, (("init", "--quiet", "--bare", empty),), (1 << 16,), SECONDS)
        _check(made, root)
        return _code(root, *_listed(root, ("--git-dir", empty, "--work-tree", ".")), run_dir)


def _listed(root: Path, where: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """Names of the files, and of ignored entries (a folder that is ignored as a whole is one, and ends in /).

    Submodules and other repositories inside are listed like the rest.
    """
    files: list[str] = []
    ignored: list[str] = []
    waiting = [("", where)]
    while waiting:
        above, words = waiting.pop()
        code, rest = ask(root / above, ((*words, *_FILES), (*words, *_IGNORED)), (LIST_BYTES, LIST_BYTES), SECONDS)
        for name in dict.fromkeys(_names(code, root / above)):
            path = above + name
            if (root / path / ".git").exists() and not (root / path).is_symlink():
                waiting.append((path.rstrip("/") + "/", ()))
            else:
                files.append(path.rstrip("/"))
        ignored += [above + name for name in _names(rest, root / above)]
    return files, ignored


def _names(reply: Reply, folder: Path) -> list[str]:
    _check(reply, folder)
    return [os.fsdecode(name) for name in reply.out.split(b"\0") if name not in (b"", b"./")]


def _check(reply: Reply, folder: Path) -> None:
    if not reply.ok:
        raise PlanError(
            f"--snapshot cannot list the code in {folder}: {reply.why}; put what is no code into .gitignore, or drop it"
        )


def _code(root: Path, names: Iterable[str], ignored: Iterable[str], run_dir: Path) -> CodeFiles:
    """Sort the names into files and links, and count them."""
    aside = _aside(root, run_dir)
    files = {name for name in names if not _is_junk(name)}
    links: set[str] = set()
    for name in ignored:
        path = name.rstrip("/")
        if not _is_junk(path):
            (files if path == name and path.endswith(_CODE) else links).add(path)
    links |= {str(found.relative_to(root)) for name in (*files, *links) if (found := aside((root / name).parent))}
    if (shared := _folder_of_runs(root, run_dir, files, aside)) is not None:
        links.add(shared)
    links = {name for name in links if not _below(name, links)}
    kept = sorted(name for name in files if name not in links and not _below(name, links))
    sizes = dict(_sizes(root, kept))
    _check_bounds(root, sizes, links)
    return CodeFiles(root, tuple(sizes), tuple(sorted(links)), sum(sizes.values()))


def _is_junk(name: str) -> bool:
    return not _JUNK.isdisjoint(name.split("/")) or name.endswith((".pyc", ".pyo"))


def _below(name: str, folders: set[str]) -> bool:
    """Whether one of the folders is above the name."""
    parts = name.split("/")
    return any("/".join(parts[:depth]) in folders for depth in range(1, len(parts)))


def _aside(root: Path, run_dir: Path) -> _Aside:
    """A function: the outermost folder below `root` that is, or holds, this one and is a run's or an environment."""

    @functools.cache
    def aside(folder: Path) -> Path | None:
        if folder in (root, folder.parent):
            return None
        above: Path | None = aside(folder.parent)
        if above is not None:
            return above
        made = (
            folder == run_dir or is_run(folder) or (folder / "pyvenv.cfg").exists() or (folder / "conda-meta").exists()
        )
        return folder if made else None

    return aside


def _folder_of_runs(root: Path, run_dir: Path, files: set[str], aside: _Aside) -> str | None:
    """The folder that the run directory is in, if that is below `root` and holds no code: `runs`.

    Another run of the script may be in it, or begin there: its `runs/other` is that of the original tree.
    """
    if not run_dir.is_relative_to(root) or run_dir == root:
        return None
    folder = run_dir.parent
    if folder != root:
        name = str(folder.relative_to(root))
        code = (other for other in files if other.startswith(f"{name}/") and other.endswith(_CODE))
        if all(aside((root / other).parent) for other in code):
            return name
    return str(run_dir.relative_to(root))


def _sizes(root: Path, names: Iterable[str]) -> Iterator[tuple[str, int]]:
    """Each file that is there, with its bytes; folders without code of their own, as of a submodule left out, too."""
    for name in names:
        try:
            status = os.lstat(root / name)
        except (FileNotFoundError, NotADirectoryError):
            continue  # deleted in the tree, and so it is in the copy
        except OSError as error:
            raise PlanError(
                f"--snapshot cannot look at {root / name}: {error.strerror}; mend that, or drop it"
            ) from None
        yield name, status.st_size if stat.S_ISREG(status.st_mode) else 0


def _check_bounds(root: Path, sizes: dict[str, int], links: set[str]) -> None:
    size, number = sum(sizes.values()), len(sizes) + len(links)
    advice = "put what is no code into .gitignore (it is then reached by a link), or drop --snapshot"
    if size > MAX_BYTES:
        largest = sorted(sizes, key=lambda name: -sizes[name])[:NAMED]
        named = ", ".join(f"{name!r} ({amount(sizes[name])})" for name in largest)
        raise PlanError(
            f"--snapshot would copy {amount(size)} of {root}, and its limit is {amount(MAX_BYTES)}; the largest are "
            f"{named}; {advice}"
        )
    if number > MAX_FILES:
        folders = Counter(os.path.dirname(name) or "." for name in sizes).most_common(NAMED)  # noqa: PTH120
        named = ", ".join(f"{name!r} ({count})" for name, count in folders)
        raise PlanError(
            f"--snapshot would copy {number} files of {root}, and its limit is {MAX_FILES}; most are in {named}; "
            f"{advice}"
        )


def amount(size: int) -> str:
    """Bytes for people: `12 KB`, `3.4 MB`."""
    if size < 1 << 20:
        return f"{(size + 1023) >> 10} KB"
    return f"{size / (1 << 20):.1f} MB"
