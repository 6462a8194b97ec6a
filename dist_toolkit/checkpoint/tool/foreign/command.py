"""`dtk ckpt convert` from others' files: read, name, write, and say what was found and what was left out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dist_toolkit.checkpoint.tool.foreign import dcp, deepspeed, torch_file
from dist_toolkit.checkpoint.tool.foreign.interpret import interpret
from dist_toolkit.checkpoint.tool.foreign.source import Converted
from dist_toolkit.checkpoint.tool.foreign.write import write
from dist_toolkit.checkpoint.tool.outcome import FINE, Outcome, UsageError
from dist_toolkit.checkpoint.tool.terminal import Progress
from dist_toolkit.checkpoint.tool.units import count_text, printable, size_text
from dist_toolkit.storage import LocalStorage


@dataclass(frozen=True)
class Options:
    """What to read, as what, to where, and what the user says about it."""

    path: str
    source: str
    out: str
    step: int | None = None
    strip: tuple[str, ...] = ()
    model_key: str | None = None
    optimizer_key: str | None = None
    scheduler_key: str | None = None
    param_names: str | None = None


def run(options: Options) -> Outcome:
    """Convert into a directory of checkpoints.

    Raises:
        UsageError: see `read` and `write`; nothing was committed.
    """
    target = Path(options.out).absolute()
    if target.is_file() or target.suffix == ".safetensors":
        raise UsageError(f"{options.out} is no directory of checkpoints; convert into one first, and that to a file")
    made = read(options)
    storage = LocalStorage(target)
    size = sum(tensor.size for tensor in made.tensors.values())
    with Progress(size) as progress:
        folder = write(storage, made, progress.begin, progress.advance)
    weights = sum(name.startswith("model.") for name in made.tensors)
    held = f"{count_text(weights, 'weight')}, {count_text(len(made.tensors) - weights, 'other tensor')}"
    lines = [f"{options.path} ({options.source}): {held}, {size_text(size)} -> {target / folder}"]
    lines += [f"  {printable(note)}" for note in made.notes]
    data = {
        "from": options.source, "path": str(Path(options.path).absolute()), "root": str(target), "folder": folder,
        "step": made.step, "tensors": len(made.tensors), "weights": weights, "size": size,
        "optimizer": made.has_optimizer, "schedule": "schedule" in made.values, "notes": list(made.notes),
    }  # fmt: skip
    return Outcome(FINE, data, lines)


def read(options: Options) -> Converted:
    """What the path holds, tensors not yet read.

    Raises:
        UsageError: it is not of that source, is damaged, needs pickle, or is not certain; says what to do.
    """
    path = Path(options.path)
    if not path.exists():
        raise UsageError(f"{options.path} does not exist")
    if options.source == "torch" and not path.is_file():
        raise UsageError(f"{options.path} is a directory; --from torch reads one file of torch.save")
    if options.source != "torch" and not path.is_dir():
        raise UsageError(f"{options.path} is a file; --from {options.source} reads a directory")
    given = _names(options.param_names)
    if options.source == "deepspeed":
        stage0 = deepspeed.read_tree(path)
        if stage0 is None:
            told = [options.model_key, options.optimizer_key, options.scheduler_key, options.param_names]
            if any(told):
                raise UsageError("ZeRO names its own parts; leave out --model-key, --optimizer-key and the like")
            return deepspeed.read(path, options.step, options.strip)
        tree: object = stage0
    else:
        tree = torch_file.read_tree(path) if options.source == "torch" else dcp.read_tree(path)
    return interpret(
        tree,
        step=options.step,
        strip=options.strip,
        model_key=options.model_key,
        optimizer_key=options.optimizer_key,
        scheduler_key=options.scheduler_key,
        param_names=given,
    )


def _names(file: str | None) -> Sequence[str] | None:
    """The list of names in a JSON file."""
    if file is None:
        return None
    try:
        found = json.loads(Path(file).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"--param-names {file}: {error.strerror}") from None
    except ValueError as error:
        raise UsageError(f"--param-names {file} is not JSON: {error}") from None
    if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
        raise UsageError(f'--param-names {file} is not a list of names: ["layer.weight", "layer.bias"]')
    return found
