"""`dtk ckpt convert`: the weights of a checkpoint, put together again, as one safetensors file."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dist_toolkit.checkpoint.manifest import Manifest, TensorEntry
from dist_toolkit.checkpoint.tool.assemble import assemble
from dist_toolkit.checkpoint.tool.outcome import FINE, FOUND, Outcome, UsageError
from dist_toolkit.checkpoint.tool.places import choose
from dist_toolkit.checkpoint.tool.terminal import Progress, Style
from dist_toolkit.checkpoint.tool.tree import size_of
from dist_toolkit.checkpoint.tool.units import count_text, size_text
from dist_toolkit.errors import CheckpointCorrupt


@dataclass(frozen=True)
class Request:
    """What to convert, and to which file."""

    path: str
    out: str
    step: int | None = None
    engine: str = ""
    everything: bool = False
    force: bool = False


def run(asked: Request, style: Style) -> Outcome:
    """Convert; exit code 1, and no file, if the checkpoint is damaged.

    Raises:
        UsageError: no such checkpoint, no weights in it, or the file may not be written.
    """
    storage, record = choose(asked.path, asked.step)
    target = _target(asked)
    data = {"root": storage.root, "folder": record.folder, "step": record.step, "out": str(target)}
    if record.manifest is None:
        return _damaged(data, record.damage or f"{record.state}, it has no record", style)
    chosen = select(record.manifest, asked.engine, asked.everything)
    total = sum(size_of(tensor) for tensor in chosen.values())
    about = {"format": "pt", "dist_toolkit.step": str(record.step)}
    try:
        with Progress(total) as progress, _replacing(target) as temporary:
            progress.begin(str(target))
            assemble(storage, record.folder, record.manifest, chosen, temporary, about, progress.advance)
    except CheckpointCorrupt as error:
        return _damaged(data, str(error), style)
    said = f"{record.folder}: {count_text(len(chosen), 'tensor')}, {size_text(total)} -> {target}"
    return Outcome(FINE, {**data, "tensors": len(chosen), "size": total, "damage": None}, [said])


def select(manifest: Manifest, engine: str, everything: bool) -> dict[str, TensorEntry]:
    """Name in the new file -> tensor: everything under its own name, or the weights under the names of the model.

    Raises:
        UsageError: there are none.
    """
    if everything:
        return dict(manifest.tensors)
    prefix = f"{engine}.model." if engine else "model."
    found = {name[len(prefix) :]: tensor for name, tensor in manifest.tensors.items() if name.startswith(prefix)}
    if not found:
        engines = sorted({name.split(".model.")[0] for name in manifest.tensors if ".model." in name})
        hint = f"--engine NAME takes one of several engines ({', '.join(engines)}); " if engines else ""
        raise UsageError(f"no tensor is named {prefix}...; {hint}--all converts everything")
    return found


def _target(asked: Request) -> Path:
    """Where to write. Raises UsageError."""
    target = Path(asked.out).absolute()
    if target.is_dir():
        raise UsageError(f"{asked.out} is a directory; pass the name of a file, {asked.out}/model.safetensors")
    if not target.parent.is_dir():
        raise UsageError(f"{target.parent} does not exist; create it first")
    if target.exists() and not asked.force:
        raise UsageError(f"{asked.out} exists; pass --force to replace it")
    return target


@contextlib.contextmanager
def _replacing(target: Path) -> Iterator[Path]:
    """A file beside the target that takes its place in the end, or is removed."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _damaged(data: dict[str, object], damage: str, style: Style) -> Outcome:
    said = f"not converted: {damage}; dtk ckpt verify reads the whole of it"
    return Outcome(FOUND, {**data, "damage": damage}, [style.bad(said)])
