"""Packages that a script begins with and that are not there: hours in a queue end at that line. Nothing is imported."""

from __future__ import annotations

import ast
import importlib.machinery
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path


def missing_import(tree: ast.Module, folder: Path) -> tuple[str, int] | None:
    """The first module that is surely missing, and its line. `folder` is what Python puts first in sys.path.

    Looks at the imports before the first other statement alone, and no further than one of a file in `folder`: what
    runs before an import may change where it looks.
    """
    for name, line in _leading(tree):
        top = name.partition(".")[0]
        if top in sys.stdlib_module_names:
            continue
        if importlib.machinery.PathFinder.find_spec(top, [str(folder)]) is not None:
            return None
        if not _found(top):
            return top, line
    return None


def _leading(tree: ast.Module) -> Iterator[tuple[str, int]]:
    for statement in tree.body:
        match statement:
            case ast.Expr(value=ast.Constant()):
                continue
            case ast.Import(names=names):
                yield from ((alias.name, statement.lineno) for alias in names)
            case ast.ImportFrom(module=str(module), level=0):
                yield module, statement.lineno
            case _:
                return


def _found(top: str) -> bool:
    try:
        return importlib.util.find_spec(top) is not None
    except (ImportError, ValueError):  # a finder of the user's environment that fails: not for us to judge
        return True
