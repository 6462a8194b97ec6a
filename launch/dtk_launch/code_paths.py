"""Where Python finds the modules of a copied tree: the folders of the import path, moved into the copy. Pure."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Moves:
    """Paths in `root` -> the same in `tree`, its copy, which holds `files` (names below it)."""

    root: Path
    tree: Path
    files: frozenset[str]

    def moved(self, path: Path) -> Path:
        """The path in the copy; ValueError if it is not in the tree."""
        return self.tree / path.relative_to(self.root)

    def moved_pair(self, pair: str) -> str:
        """`PYTHONPATH=...` with each folder of the tree in the copy, other `K=V` as they are."""
        name, equals, value = pair.partition("=")
        if name != "PYTHONPATH" or not equals:
            return pair
        return "PYTHONPATH=" + os.pathsep.join(self._there(entry) or entry for entry in value.split(os.pathsep))

    def folders(self, python_path: str, further: Iterable[str]) -> tuple[str, ...]:
        """Folders of the import path that are code of the tree, in the copy and each once.

        A relative entry of PYTHONPATH is read from the job's own working folder, so it needs nothing.
        """
        entries = [*python_path.split(os.pathsep), *further]
        return tuple(dict.fromkeys(there for entry in entries if (there := self._there(entry))))

    def _there(self, entry: str) -> str:
        """The entry in the copy; '' for one that is relative, outside of the tree, or holds no copied file."""
        path = Path(os.path.normpath(entry))
        if not path.is_absolute():
            return ""
        if not path.is_relative_to(self.root):
            path = path.resolve()
        if not path.is_relative_to(self.root):
            return ""
        name = str(path.relative_to(self.root))
        copied = name == "." or any(file == name or file.startswith(f"{name}/") for file in self.files)
        return str(self.moved(path)) if copied else ""


def path_line(moves: Moves, python_path: str, further: Iterable[str]) -> tuple[str, ...]:
    """The line of bash that puts the copy before the tree it is of, () if nothing is imported from that.

    `further`: folders that Python imports from without PYTHONPATH.
    """
    folders = moves.folders(python_path, further)
    if not folders:
        return ()
    return (f'export PYTHONPATH={shlex.quote(os.pathsep.join(folders))}"${{PYTHONPATH:+:$PYTHONPATH}}"',)


def folders_in_place(path: Iterable[str], mappings: Iterable[dict[str, str]]) -> tuple[str, ...]:
    """Folders on Python's path, and those that hold a package which an editable install maps (name -> folder)."""
    parents = [str(Path(folder).parent) for mapping in mappings for folder in mapping.values()]
    return (*(entry for entry in path if entry), *parents)
