"""A folder for one examination, below the folder of the run directories; nothing of it is left afterwards."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dtk_launch.errors import PlanError

_PREFIX = ".dtk-doctor-"


@dataclass(frozen=True)
class Place:
    """`folder` is there and empty; `error`: why it is not below the folder of the run directories."""

    folder: Path
    error: str = ""


@contextlib.contextmanager
def place(run_dir: Path) -> Iterator[Place]:
    """A folder below `run_dir`, which is made if it is not there, or else one for temporary files.

    Raises PlanError if `run_dir`, or a folder above it, is a file.
    """
    for path in (run_dir, *run_dir.parents):
        if path.exists() and not path.is_dir():
            raise PlanError(f"--run-dir={run_dir}: {path} is a file; pass a folder")
    made = [path for path in (run_dir, *run_dir.parents) if not path.exists()]
    error = ""
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=run_dir))
        folder.chmod(0o755)
    except OSError as failure:
        error = failure.strerror or str(failure)
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    try:
        yield Place(folder, error)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        for path in made:
            with contextlib.suppress(OSError):  # somebody has put something there
                path.rmdir()
