"""Files that `dtk` reads or runs by path: found in a checkout and in an installed wheel."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
_ROOTS = (_PACKAGE / "_data", _PACKAGE.parent.parent)  # the wheel's data (see pyproject.toml); the checkout's root


def find_data(name: str) -> Path:
    """The file or folder `name`, a path relative to the repository's root. Raises FileNotFoundError."""
    for root in _ROOTS:
        if (root / name).exists():
            return root / name
    raise FileNotFoundError(f"{name} is neither in {_ROOTS[0]} nor in {_ROOTS[1]}; reinstall dist-toolkit")


def worker_path() -> Path:
    """The bootstrap that torchrun runs, by path, in every rank."""
    return _PACKAGE / "worker.py"
