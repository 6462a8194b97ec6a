"""Keeps what a script saves while it is measured apart from what it saved before, without importing anything early."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any


def keep_checkpoints_apart(folder: Path) -> None:
    """Have dist_toolkit's checkpointers use `folder`: each start begins anew, and the script's own are left alone.

    Whoever in this process imports dist_toolkit, and whenever.
    """

    def change(runtime: ModuleType) -> None:
        original = runtime.Runtime.checkpointer

        def checkpointer(self: Any, root: Any = None, **options: Any) -> Any:
            name = "default" if root is None else re.sub(r"\W+", "-", str(root))
            return original(self, folder / name, **options)

        runtime.Runtime.checkpointer = checkpointer

    after_import("dist_toolkit.runtime", change)


def after_import(name: str, then: Callable[[ModuleType], None]) -> None:
    """Call `then` with this module as soon as it has been imported, before whoever imports it sees it."""
    if name in sys.modules:
        then(sys.modules[name])
    else:
        sys.meta_path.insert(0, _Once(name, then))


class _Once(MetaPathFinder):
    """Finds the module as the others do, and leaves."""

    def __init__(self, name: str, then: Callable[[ModuleType], None]) -> None:
        self._name, self._then = name, then

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self._name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            self._then(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec
