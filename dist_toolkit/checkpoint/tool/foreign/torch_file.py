"""Files of torch.save, with what torch itself reads without executing anything (weights_only)."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from dist_toolkit.checkpoint.tool.foreign.source import wrap
from dist_toolkit.checkpoint.tool.outcome import UsageError

_ADVICE = ("Weights only load failed", "Please file an issue", "Check the documentation")


def read_tree(path: Path) -> Any:
    """What was saved, with lazy tensors. See `load`."""
    return lazily(load(path), path.name)


def load(path: Path, known: Mapping[str, Any] | None = None) -> Any:
    """What was saved; tensors are mapped into memory where the file allows.

    Args:
        known: full names of classes that stand in for those of the file.

    Raises:
        UsageError: it is damaged, or needs more than tensors and plain values.
    """
    stand_ins: list[Any] = [(stand_in, name) for name, stand_in in (known or {}).items()]
    with torch.serialization.safe_globals(stand_ins), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's words on how it reads
        try:
            try:
                return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            except RuntimeError as error:
                if "mmap can only be used" not in str(error):
                    raise
                return torch.load(path, map_location="cpu", weights_only=True)  # a file from before torch 1.6
        except pickle.UnpicklingError as error:
            raise UsageError(_refusal(path, error)) from None
        except (RuntimeError, EOFError, ValueError, KeyError) as error:
            raise UsageError(_unreadable(path, error)) from None


def lazily(value: Any, name: str) -> Any:
    """The same nest with lazy tensors."""
    if isinstance(value, torch.Tensor):
        return wrap(value, name)
    if isinstance(value, Mapping):
        return {key: lazily(item, f"{name}: {key}") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        items = [lazily(item, f"{name}[{number}]") for number, item in enumerate(value)]
        return tuple(items) if isinstance(value, tuple) else items
    return value


def _unreadable(path: Path, error: Exception) -> str:
    """In torch's words, without its advice to execute what the file says."""
    lines = [line for line in str(error).splitlines() if line and not line.startswith(_ADVICE)]
    return f"{path} cannot be read as a file of torch.save: {lines[0] if lines else type(error).__name__}"


def _refusal(path: Path, error: Exception) -> str:
    try:
        needs = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # an old or damaged file
        needs = []
    if not needs:
        return _unreadable(path, error)
    return (
        f"{path} needs {', '.join(sorted(needs)[:4])}, and to make these would execute what the file says; save the "
        "state_dicts, which are tensors and plain values, in the program that wrote it: "
        "torch.save({'model': model.state_dict(), 'optimizer': optimizer.state_dict(), 'step': step}, FILE)"
    )
