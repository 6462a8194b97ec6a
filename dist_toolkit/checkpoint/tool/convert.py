"""`dtk ckpt convert`: weights as one safetensors file or a Hugging Face folder; others' files into ours."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from dist_toolkit.checkpoint.manifest import Manifest, TensorEntry
from dist_toolkit.checkpoint.tool import convert_hf
from dist_toolkit.checkpoint.tool.assemble import assemble, new_size
from dist_toolkit.checkpoint.tool.cast import NAMES
from dist_toolkit.checkpoint.tool.foreign.detect import detect
from dist_toolkit.checkpoint.tool.hf import names as hf_names
from dist_toolkit.checkpoint.tool.hf.config import Config, read_config
from dist_toolkit.checkpoint.tool.hf.shards import parse_size
from dist_toolkit.checkpoint.tool.outcome import FINE, FOUND, Outcome, UsageError
from dist_toolkit.checkpoint.tool.places import choose, find, place_of
from dist_toolkit.checkpoint.tool.records import Record
from dist_toolkit.checkpoint.tool.terminal import Progress, Style
from dist_toolkit.checkpoint.tool.tree import size_of
from dist_toolkit.checkpoint.tool.units import count_text, printable, size_text
from dist_toolkit.errors import CheckpointCorrupt
from dist_toolkit.storage import Storage, is_url

_ONLY_INTO_OURS = ("model_key", "optimizer_key", "scheduler_key", "param_names")
_ONLY_FROM_OURS = ("to", "engine", "everything", "force", "config", "max_shard_size", "dtype")


@dataclass(frozen=True)
class Request:
    """What to convert, to what, and how; see `dtk ckpt convert --help`."""

    path: str
    out: str
    step: int | None = None
    to: str | None = None
    engine: str = ""
    everything: bool = False
    force: bool = False
    strip: tuple[str, ...] = ()
    dtype: str | None = None
    config: str | None = None
    max_shard_size: str | None = None
    source: str | None = None
    model_key: str | None = None
    optimizer_key: str | None = None
    scheduler_key: str | None = None
    param_names: str | None = None


def run(asked: Request, style: Style) -> Outcome:
    """Convert; exit code 1, and nothing written, if the checkpoint is damaged.

    Raises:
        UsageError: what was given cannot be read as a checkpoint, does not fit, or the target may not be written.
    """
    if is_url(asked.out):
        raise UsageError(f"{asked.out}: convert writes to this machine's files only; pass a path, and copy from there")
    place_of(asked.path)
    if not is_url(asked.path) and not Path(asked.path).exists():
        raise UsageError(f"{asked.path} does not exist; pass a directory of checkpoints, or another program's file")
    source = asked.source or detect(asked.path)
    if source is not None:
        _refuse_options(asked, _ONLY_FROM_OURS, f"a checkpoint of {source} is converted into format 1")
        from dist_toolkit.checkpoint.tool.foreign import command  # loads torch

        options = command.Options(
            asked.path, source, asked.out, asked.step, asked.strip,
            asked.model_key, asked.optimizer_key, asked.scheduler_key, asked.param_names,
        )  # fmt: skip
        return command.run(options)
    _refuse_options(asked, _ONLY_INTO_OURS, "PATH is a checkpoint of format 1")
    if Path(asked.path).is_file():
        raise UsageError(f"{asked.path} is a file of an unknown kind; pass --from torch if torch.save wrote it")
    find(asked.path)
    write = _choose_target(asked)
    storage, record = choose(asked.path, asked.step)
    data = {"root": storage.root, "folder": record.folder, "step": record.step, "out": str(Path(asked.out).absolute())}
    if record.is_foreign:
        raise UsageError(f"{storage.root}/{record.folder} cannot be converted: {record.damage}")
    if record.manifest is None:
        return _damaged(data, record.damage or f"{record.state}, it has no record", style)
    chosen = hf_names.strip(select(record.manifest, asked.engine, asked.everything), asked.strip)
    try:
        return write(storage, record, record.manifest, chosen, data)
    except CheckpointCorrupt as error:
        return _damaged(data, str(error), style)


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


Writer = Callable[[Storage, Record, Manifest, dict[str, TensorEntry], dict[str, Any]], Outcome]


def _choose_target(asked: Request) -> Writer:
    """What writes the kind of target that is asked for; all that can be refused without the checkpoint is.

    Raises:
        UsageError: it may not be written, or the options do not go together.
    """
    to = asked.to or ("safetensors" if asked.out.endswith(".safetensors") else None)
    if asked.everything and asked.dtype:
        raise UsageError("--dtype is for weights, and --all converts the optimizer's state too; leave one of them out")
    dtype = NAMES[asked.dtype] if asked.dtype else None
    if to == "hf":
        if asked.everything:
            raise UsageError("a Hugging Face folder holds weights only; leave out --all")
        target, config = convert_hf.check_target(asked.out), read_config(asked.config)
        most = parse_size(asked.max_shard_size or "5GB")
        return partial(_write_folder, target=target, config=config, most=most, dtype=dtype)
    if asked.config is not None or asked.max_shard_size is not None:
        name = "--config" if asked.config is not None else "--max-shard-size"
        raise UsageError(f"{name} is for a Hugging Face folder; add --to hf, or leave it out")
    if to is None and not Path(asked.out).is_dir():
        raise UsageError(
            f"{asked.out} does not say what to write: pass --to safetensors for one file (or a name that ends with "
            ".safetensors), --to hf for a Hugging Face folder"
        )
    file = _target(asked)
    return partial(_write_file, target=file, dtype=dtype)


def _write_file(
    storage: Storage, record: Record, manifest: Manifest, chosen: dict[str, TensorEntry], data: dict[str, Any],
    target: Path, dtype: str | None,
) -> Outcome:  # fmt: skip
    about = {"format": "pt", "dist_toolkit.step": str(record.step)}
    with Progress(sum(map(size_of, chosen.values()))) as progress, _replacing(target) as temporary:
        progress.begin(str(target))
        assemble(storage, record.folder, manifest, chosen, temporary, about, progress.advance, dtype)
    size = sum(new_size(tensor, dtype) for tensor in chosen.values())
    said = f"{record.folder}: {count_text(len(chosen), 'tensor')}, {size_text(size)} -> {target}"
    return Outcome(FINE, {**data, "to": "safetensors", "tensors": len(chosen), "size": size, "damage": None}, [said])


def _write_folder(
    storage: Storage, record: Record, manifest: Manifest, chosen: dict[str, TensorEntry], data: dict[str, Any],
    target: Path, config: Config, most: int, dtype: str | None,
) -> Outcome:  # fmt: skip
    made = convert_hf.write_folder(storage, record.folder, manifest, chosen, target, config, most, dtype)
    count = sum(map(len, made.files.values()))
    parts = f"{count_text(count, 'tensor')}, {size_text(made.size)} in {count_text(len(made.files), 'file')}"
    lines = [f"{record.folder}: {parts} -> {target}", f"  with {', '.join(['config.json', *made.copied])}"]
    lines += [f"  tied: {printable(name)} is stored as {printable(kept)}" for name, kept in sorted(made.ties.items())]
    for words, names in (("the model of --config also has", made.missing), ("that model lacks", made.besides)):
        if names:
            lines.append(f"  {words} {printable(hf_names.some(names))}")
    facts = {
        "to": "hf", "tensors": count, "size": made.size, "files": list(made.files), "copied": made.copied,
        "tied": dict(made.ties), "missing": made.missing, "besides": made.besides, "damage": None,
    }  # fmt: skip
    return Outcome(FINE, {**data, **facts}, lines)


def _refuse_options(asked: Request, names: tuple[str, ...], because: str) -> None:
    given = [name for name in names if getattr(asked, name)]
    if given:
        option = "--all" if given[0] == "everything" else f"--{given[0].replace('_', '-')}"
        raise UsageError(f"{option} does nothing here: {because}; leave it out")


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
