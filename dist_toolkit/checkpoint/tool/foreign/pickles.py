"""Pickles of other programs, read without executing anything: only classes that are named here are ever made."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Mapping
from typing import Any

from dist_toolkit.checkpoint.tool.outcome import UsageError

Known = Mapping[tuple[str, str], Any]
"""(module, name) -> what stands for it."""


class _Unpickler(pickle.Unpickler):
    def __init__(self, data: bytes, find: Callable[[str, str], Any]) -> None:
        super().__init__(io.BytesIO(data))
        self._find = find

    def find_class(self, module: str, name: str) -> Any:
        """What stands for the class; never an import of what the file asks for."""
        return self._find(module, name)


def read(data: bytes, path: str, known: Known, others: Callable[[str, str], Any] = lambda module, name: None) -> Any:
    """The object.

    Args:
        others: what stands for a name that is not in `known`; None: nothing does.

    Raises:
        UsageError: it is damaged, or needs another class or function.
    """

    def find(module: str, name: str) -> Any:
        made = known.get((module, name)) or others(module, name)
        if made is None:
            raise UsageError(f"{path} needs {module}.{name}, which is not executed here: it may do anything")
        return made

    try:
        return _Unpickler(data, find).load()
    except UsageError:
        raise
    except Exception as error:  # a damaged pickle raises anything
        raise UsageError(f"{path} cannot be read ({type(error).__name__}: {error})") from None
