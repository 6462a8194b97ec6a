"""`dtk init`: a script and a file of settings that run as they are."""

from __future__ import annotations

import shlex
from pathlib import Path

from dtk_launch.errors import PlanError
from dtk_launch.resources import find_data

FILES = ("train.py", "dtk.toml")


def write(folder: Path, force: bool) -> str:
    """Write the files into `folder`, made if it is not there, and return what to do next.

    Raises PlanError, having written nothing, if one of them is there and `force` is not given.
    """
    there = [name for name in FILES if (folder / name).exists() or (folder / name).is_symlink()]
    if there and not force:
        raise PlanError(
            f"{' and '.join(there)} in {folder} would be overwritten; pass --force, or another folder: dtk init my-run"
        )
    _check_settings(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            (folder / name).write_bytes(find_data(f"examples/starter/{name}").read_bytes())
    except OSError as error:
        raise PlanError(f"{error.filename} cannot be written: {error.strerror}; pass another folder") from None
    step = "" if folder.resolve() == Path.cwd() else f"cd {shlex.quote(str(folder))}\n"
    return (
        f"wrote {' and '.join(str(folder / name) for name in FILES)}; next:\n{step}dtk launch train.py\n"
        "dtk launch --profile two --name two train.py\ndtk explain --profile two train.py"
    )


def _check_settings(folder: Path) -> None:
    """A dtk.toml beside a [tool.dtk] would be refused by the first launch."""
    from dtk_launch.config import read_file

    file = read_file(folder) if (folder / "pyproject.toml").is_file() and not (folder / "dtk.toml").exists() else None
    if file is not None and file.name:
        raise PlanError(f"[tool.dtk] of {folder / file.name} holds the settings already; pass another folder")
