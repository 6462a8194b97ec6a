"""`dtk ckpt convert --to hf`: the weights of a checkpoint as a folder that `from_pretrained` loads."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from dist_toolkit.checkpoint.manifest import Manifest, TensorEntry
from dist_toolkit.checkpoint.tool.assemble import assemble, new_size
from dist_toolkit.checkpoint.tool.cast import cast_type
from dist_toolkit.checkpoint.tool.hf import names as hf_names
from dist_toolkit.checkpoint.tool.hf.config import CONFIG, Config
from dist_toolkit.checkpoint.tool.hf.shards import INDEX, index, split
from dist_toolkit.checkpoint.tool.hf.ties import tied
from dist_toolkit.checkpoint.tool.outcome import UsageError
from dist_toolkit.checkpoint.tool.terminal import Progress
from dist_toolkit.checkpoint.tool.tree import size_of
from dist_toolkit.storage import Storage

_ABOUT = {"format": "pt"}


@dataclass(frozen=True)
class Folder:
    """What was written: file -> names; name left out -> name stored for it; names that differ from the model's own."""

    files: Mapping[str, list[str]]
    size: int
    copied: list[str]
    ties: Mapping[str, str]
    missing: list[str]
    besides: list[str]


def write_folder(
    storage: Storage, folder: str, manifest: Manifest, weights: Mapping[str, TensorEntry], target: Path,
    config: Config, most: int, dtype: str | None,
) -> Folder:  # fmt: skip
    """Write the folder, as a whole or not at all.

    Args:
        most: bytes of one file.
        dtype: the safetensors name of the type that floats get; None: their own.

    Raises:
        UsageError: the target may not be written, the names are another model's, or a number does not fit `dtype`.
        CheckpointCorrupt: see `assemble`.
    """
    ties = tied(weights) if config.ties else {}
    kept = {name: tensor for name, tensor in weights.items() if name not in ties}
    missing, besides = hf_names.compare(kept, ties, config.names)
    sizes = {name: new_size(tensor, dtype) for name, tensor in kept.items()}
    files = split(sizes, most)
    with Progress(sum(map(size_of, kept.values()))) as progress, _appearing(target) as made:
        for file, names in files.items():
            progress.begin(file)
            part = {name: kept[name] for name in names}
            assemble(storage, folder, manifest, part, made / file, _ABOUT, progress.advance, dtype)
        if len(files) > 1:
            (made / INDEX).write_text(index(files, sizes), encoding="utf-8")
        types = {cast_type(tensor.dtype, dtype) for tensor in kept.values()}
        (made / CONFIG).write_text(config.encode(types), encoding="utf-8")
        for source in config.beside:
            shutil.copyfile(source, made / source.name)
    return Folder(files, sum(sizes.values()), [path.name for path in config.beside], ties, missing, besides)


def check_target(out: str) -> Path:
    """Where to write: a folder that is not there, or is empty. Raises UsageError."""
    target = Path(out).absolute()
    if target.exists() and not target.is_dir():
        raise UsageError(f"{out} is a file; --to hf writes a folder: pass the name of one")
    if target.is_dir() and any(target.iterdir()):
        raise UsageError(f"{out} exists and is not empty; pass the name of a new folder")
    if not target.parent.is_dir():
        raise UsageError(f"{target.parent} does not exist; create it first")
    return target


@contextlib.contextmanager
def _appearing(target: Path) -> Iterator[Path]:
    """A folder beside the target that takes its place in the end, or is removed."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    temporary.mkdir()
    try:
        yield temporary
        temporary.rename(target)  # also onto an empty folder
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
