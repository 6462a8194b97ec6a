"""The heartbeat of a rank: beats each time an optimizer of torch has made a step, whatever the script is.

torch's own hook for all optimizers is registered at the moment the script imports torch, and never otherwise. The
rank's bootstrap loads this file by path, so it stands alone: standard library only, no import from this package.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

TYPE_CHECKING = False  # typing is a quarter of what a rank waits for before its script; nothing of it is needed to run
if TYPE_CHECKING:
    from typing import Any

_MODULE = "torch.optim.optimizer"


def install(beat: Callable[[], None]) -> None:
    """Call `beat` after each step of any torch optimizer of this process, forked children excepted."""
    module = sys.modules.get(_MODULE)
    if module is not None:
        _register(module, beat)
    else:
        sys.meta_path.insert(0, _Finder(beat))


class _Finder:
    """Sits in sys.meta_path until the module is looked for, finds nothing itself, and takes itself away."""

    def __init__(self, beat: Callable[[], None]) -> None:
        self._beat = beat

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """None for every other module. Of torch's: the spec that the other finders give."""
        if name != _MODULE:
            return None
        if self in sys.meta_path:
            sys.meta_path.remove(self)
        for finder in sys.meta_path:
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                _after_loading(spec, self._beat)
                return spec
        return None


def _after_loading(spec: ModuleSpec, beat: Callable[[], None]) -> None:
    """Have the spec's own loader register the hook when it has run the module; nothing of it stays on the loader."""
    loader: Any = spec.loader
    load = getattr(loader, "exec_module", None)
    if load is None:
        return

    def exec_module(module: ModuleType) -> None:
        del loader.exec_module
        load(module)
        _register(module, beat)

    try:
        loader.exec_module = exec_module
    except AttributeError:  # a loader without room for it: no heartbeat
        return


def _register(module: ModuleType, beat: Callable[[], None]) -> None:
    register = getattr(module, "register_optimizer_step_post_hook", None)
    if register is None:
        return
    compiling = getattr(sys.modules.get("torch.compiler"), "is_compiling", None)

    def after_step(*_: object) -> None:
        # traced into a compiled step, a write to memory would break its graph: such a step does not beat
        nonlocal compiling
        if compiling is None:
            compiling = getattr(sys.modules.get("torch.compiler"), "is_compiling", None)
        if compiling is None or not compiling():
            beat()

    handle = register(after_step)
    os.register_at_fork(after_in_child=handle.remove)
