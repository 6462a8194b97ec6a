"""Copies the code of a run: files with their modes and times, links as links. It is there whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from dtk_launch.code_files import CodeFiles
from dtk_launch.errors import PlanError

_AT_ONCE = 8
"""Files: a shared file system answers each after a millisecond."""


@contextmanager
def complete(folder: Path) -> Iterator[Path]:
    """A new folder to fill, which becomes `folder` when the block ends well and is removed when it does not.

    Raises PlanError if it cannot be made, or another process makes the same one.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    try:
        partial.parent.mkdir(parents=True, exist_ok=True)
        partial.mkdir()
    except FileExistsError:
        raise PlanError(
            f"{partial} is there: another dtk submit makes it now, or was killed while it did; remove it, or wait"
        ) from None
    except OSError as error:
        raise PlanError(f"{partial} cannot be made: {error.strerror}; pass another --run-dir") from None
    try:
        yield partial
        partial.rename(folder)
    except OSError as error:
        raise PlanError(f"{folder} cannot be written: {error.strerror}; pass another --run-dir") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def copy_code(code: CodeFiles, target: Path) -> None:
    """Copy into `target`, a folder that is not there. A file that has been deleted meanwhile is left out.

    Raises PlanError for one that cannot be read, OSError for what cannot be written.
    """
    parents = {target / os.path.dirname(name) for name in (*code.files, *code.links)}  # noqa: PTH120
    for folder in (target, *sorted(parents)):
        folder.mkdir(parents=True, exist_ok=True)
    for name in code.links:
        (target / name).symlink_to(code.root / name)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for _ in pool.map(lambda name: _copy(code.root, target, name), code.files):
            pass


def _copy(root: Path, target: Path, name: str) -> None:
    source, copy = root / name, target / name
    if source.is_symlink():
        with suppress(FileNotFoundError):
            copy.symlink_to(_pointing(root, source))
    elif source.is_dir():
        copy.mkdir(exist_ok=True)
    elif source.is_file():
        try:
            file = source.open("rb")
        except FileNotFoundError:
            return
        except OSError as error:
            raise PlanError(
                f"--snapshot cannot read {source}: {error.strerror}; make it readable, or put it into .gitignore"
            ) from None
        with file, copy.open("xb") as written:
            shutil.copyfileobj(file, written, 1 << 20)
        with suppress(FileNotFoundError):
            shutil.copystat(source, copy)


def _pointing(root: Path, link: Path) -> str:
    """What the copy of a link says: what is inside the tree is reached there, what is outside where it is."""
    text = os.readlink(link)  # noqa: PTH115
    there = os.path.normpath(link.parent / text)
    if not Path(there).is_relative_to(root):
        return there
    return os.path.relpath(there, link.parent) if os.path.isabs(text) else text  # noqa: PTH117
