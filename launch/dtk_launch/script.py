"""Is there a Python program to run? Found out here, before anything starts; no code of the user is imported or run."""

from __future__ import annotations

import ast
import importlib.machinery
import importlib.util
import os
import sys
import warnings
from importlib.machinery import ModuleSpec
from pathlib import Path

from dtk_launch.errors import PlanError, nearest
from dtk_launch.imports import missing_import

_NOT_PYTHON = {
    ".ipynb": "a notebook (jupyter nbconvert --to script makes a script of it)",
    **dict.fromkeys((".json", ".toml", ".yaml", ".yml", ".ini", ".cfg"), "a file of settings"),
}


def check_script(script: str, module: bool, cwd: Path, env: tuple[str, ...] = ()) -> None:
    """Raise PlanError unless `script` is a Python file that compiles (`module`: one that `python -m` would find).

    `env` are the `K=V` of --env: with another PYTHONPATH, what the script imports cannot be looked for from here.
    """
    try:
        if module:
            _check_module(script, cwd)
        else:
            tree = _check_file(script, cwd / script)
            if not any(pair.startswith("PYTHON") for pair in env):
                _check_imports(script, tree, (cwd / script).resolve().parent)
    except OSError as error:
        raise PlanError(f"{script} cannot be looked at: {error.strerror}; pass the path of a Python script") from None


def _check_file(script: str, path: Path) -> ast.Module:
    if path.is_dir():
        example = next(iter(sorted(path.glob("*.py"))), path / "train.py")
        raise PlanError(f"{script} is a folder; pass a Python script, for example {Path(script) / example.name}")
    if path.is_symlink() and not path.exists():
        raise PlanError(
            f"{script} is a link to {path.readlink()}, which is not there; pass the path of a Python script"
        )
    if not path.exists():
        raise PlanError(f"{script}: no such file{_suggestion(script, path)}")
    if not path.is_file():
        raise PlanError(f"{script} is no regular file, and every rank reads it anew; pass the path of a Python script")
    if path.suffix in _NOT_PYTHON:
        raise PlanError(f"{script} is not Python source but {_NOT_PYTHON[path.suffix]}; pass a Python script")
    try:
        source = path.read_bytes()
    except OSError as error:
        raise PlanError(f"{script} cannot be read: {error.strerror}") from None
    first = source.partition(b"\n")[0]
    if b"\0" in source:
        raise PlanError(f"{script} is a binary file, not Python source; dtk runs Python scripts in every rank")
    if path.suffix in (".sh", ".bash", ".zsh") or (first.startswith(b"#!") and b"python" not in first):
        raise PlanError(
            f"{script} is not Python ({first.decode(errors='replace')}); pass the Python script it would run"
        )
    return _check_compiles(script, source)


def _suggestion(script: str, path: Path) -> str:
    if "." not in path.name and "/" not in script and _find(script, path.parent) is not None:
        return f"; to run the module {script}, add -m"
    folder = path.parent
    if not folder.is_dir():
        return f" (and no folder {Path(script).parent})"
    guess = nearest(path.name, (p.name for p in folder.glob("*.py")))
    return f"; did you mean {Path(script).parent / guess}?" if guess else f" in {folder}"


def _check_compiles(script: str, source: bytes) -> ast.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the ranks show them
            compile(source, script, "exec", dont_inherit=True)
            return ast.parse(source, script)
    except (SyntaxError, ValueError) as error:
        if not isinstance(error, SyntaxError):
            raise PlanError(f"{script} is not Python: {error}") from None
        line = f" line {error.lineno}" if error.lineno else ""
        text = f": {error.text.strip()}" if error.text else ""
        raise PlanError(f"{script}{line} is not Python: {error.msg}{text}") from None


def _check_imports(script: str, tree: ast.Module, folder: Path) -> None:
    if any(os.environ.get(name) for name in ("PYTHON_EXEC", "PYTHONSAFEPATH")):
        return  # another Python, or another path, than this one
    found = missing_import(tree, folder)
    if found is not None:
        name, line = found
        raise PlanError(
            f"{script} line {line} imports {name}, which is neither in {folder} nor installed for {sys.executable}; "
            "install it there, or start the dtk of the environment that has it"
        )


def _check_module(name: str, cwd: Path) -> None:
    if name.endswith(".py"):
        raise PlanError(
            f"-m takes a module name, not the file {name}; drop -m, or pass -m {name[:-3].replace('/', '.')}"
        )
    try:
        spec = _find(name, cwd)
    except (ImportError, ValueError) as error:  # of a module without a spec, or of a finder
        raise PlanError(
            f"the module {name!r} cannot be found: {error}; pass another, or the path of a script"
        ) from None
    if spec is None:
        raise PlanError(f"no module {name!r}; it is looked for in {cwd} and in Python's path, as with python -m")
    if spec.submodule_search_locations is not None:
        spec = _find(f"{name}.__main__", cwd)
        if spec is None:
            raise PlanError(f"{name!r} is a package without __main__.py, so it cannot be run; name one of its modules")
    if spec.origin is not None and spec.origin.endswith(".py"):
        tree = _check_compiles(spec.origin, Path(spec.origin).read_bytes())
        _check_imports(spec.origin, tree, cwd)
    elif spec.origin == "built-in" or isinstance(spec.loader, importlib.machinery.ExtensionFileLoader):
        raise PlanError(f"the module {name!r} is compiled ({spec.origin}), and python -m needs source; pass another")


def module_file(name: str, cwd: Path) -> Path | None:
    """The file that `python -m` would run, None if it is none that can be found; for a module that was checked."""
    spec = _find(name, cwd)
    if spec is not None and spec.submodule_search_locations is not None:
        spec = _find(f"{name}.__main__", cwd)
    return None if spec is None or spec.origin is None else Path(spec.origin)


def _find(name: str, cwd: Path) -> ModuleSpec | None:
    """The module's spec without importing its parents (importlib.util.find_spec would run their code)."""
    top, *rest = name.split(".")
    if not all(part.isidentifier() for part in (top, *rest)):
        return None
    spec = importlib.machinery.PathFinder.find_spec(top, [str(cwd)])
    if spec is None or (spec.loader is None and not rest):  # a bare folder is a namespace package; prefer a real one
        spec = importlib.util.find_spec(top) or spec
    for depth, _ in enumerate(rest, start=2):
        if spec is None or spec.submodule_search_locations is None:
            return None
        locations = list(spec.submodule_search_locations)
        spec = importlib.machinery.PathFinder.find_spec(".".join(name.split(".")[:depth]), locations)
    return spec
