"""Directories that DeepSpeed's `engine.save_checkpoint` wrote: fp32 weights, moments and steps of ZeRO 0 to 3.

deepspeed itself is not needed. Its few classes in the files are replaced by empty ones; nothing of them is executed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dist_toolkit.checkpoint.tool.foreign import names, torch_file
from dist_toolkit.checkpoint.tool.foreign.detect import is_deepspeed, latest
from dist_toolkit.checkpoint.tool.foreign.interpret import assemble
from dist_toolkit.checkpoint.tool.foreign.optimizer import NamedState
from dist_toolkit.checkpoint.tool.foreign.partitions import Partitions, Shapes, stage2, stage3
from dist_toolkit.checkpoint.tool.foreign.source import Converted, LazyTensor, check_dtype, lazy
from dist_toolkit.checkpoint.tool.outcome import UsageError


class _StandIn:
    """Takes the place of DeepSpeed's objects whose content is not needed."""


class _Stage(int):
    """Takes the place of ZeroStageEnum."""


_KNOWN = {
    "deepspeed.runtime.fp16.loss_scaler.LossScaler": _StandIn,
    "deepspeed.runtime.fp16.loss_scaler.DynamicLossScaler": type("_Dynamic", (_StandIn,), {}),
    "deepspeed.utils.tensor_fragment.fragment_address": type("_Address", (_StandIn,), {}),
    "deepspeed.runtime.zero.config.ZeroStageEnum": _Stage,
}
_RANK = re.compile(r"zero_pp_rank_(\d+)_mp_rank_(\d+)_(model|optim)_states\.pt$")


@dataclass(frozen=True)
class _Files:
    """What the files of a save hold: of each rank its optimizer's part, and its model's (stages 0 to 2: one)."""

    models: Sequence[Mapping[str, Any]]
    optimizers: Sequence[Mapping[str, Any]]


def folder_of(path: Path) -> Path:
    """The folder of one save: `path`, or the one in it that the file `latest` names. Raises UsageError."""
    if is_deepspeed(path):
        return path
    found = latest(path)
    if found is None or not is_deepspeed(found):
        raise UsageError(f"{path} holds no save of DeepSpeed's; pass the folder with the file latest, or global_stepN")
    return found


def read_tree(path: Path) -> dict[str, Any] | None:
    """Of a save without ZeRO, what `interpret` takes; None: it is one of ZeRO, for `read`.

    Raises:
        UsageError: see `read`.
    """
    folder = folder_of(path)
    _refuse_parallel(folder)
    if next(folder.glob("*_optim_states.pt"), None) is not None:
        return None
    file = folder / "mp_rank_00_model_states.pt"
    if not file.is_file():
        raise UsageError(f"{folder} lacks the files *_optim_states.pt, or they were not all copied")
    found = torch_file.load(file, _KNOWN)
    kept = {key: found.get(key) for key in ("module", "optimizer", "lr_scheduler", "global_steps")}
    if kept["module"] is None:
        raise UsageError(f"{file} holds no module")
    tree: dict[str, Any] = torch_file.lazily({k: v for k, v in kept.items() if v is not None}, file.name)
    return tree


def read(path: Path, step: int | None, strip: Sequence[str]) -> Converted:
    """A save of ZeRO 1, 2 or 3. Nothing but headers is read now.

    Raises:
        UsageError: files are missing or damaged, or it is of a kind that is not converted.
    """
    folder = folder_of(path)
    files = _open(folder)
    model, optimizers = files.models[0], files.optimizers
    parts = _parts(folder, files)
    rename = names.renaming([name for name in model["module"] if not names.is_extra(name)], strip)
    weights: dict[str, LazyTensor] = {}
    extra: dict[str, Any] = {}
    shared = dict(model.get("shared_params") or {})
    for name, value in model["module"].items():
        if names.is_extra(name):
            extra[rename(name)] = value
        else:
            weights[rename(name)] = _weight(folder, shared.get(name, name), value, files, parts)
    state = NamedState()
    for key, name, found in parts.states():
        if isinstance(found, LazyTensor):
            state.tensors[f"optim.{rename(name)}.{key}"] = found
        else:
            state.plain.setdefault(rename(name), {})[key] = found
    for options, members in parts.groups():
        state.groups.append({**options, "params": [rename(name) for name in members]})
    if step is None:
        step = state.steps()
    done = int(model.get("global_steps", -1)) if step is None else step
    if done < 0:
        raise UsageError(f"{folder} does not say how many steps were done; pass --step N")
    known = {"module", "optimizer", "param_shapes", "buffer_names", "shared_params", "frozen_param_shapes",
             "frozen_param_fragments", "ds_config", "ds_version", "global_steps", "skipped_steps", "global_samples",
             "dp_world_size", "mp_world_size", "checkpoint_parallel_dimensions"}  # fmt: skip
    left_out = [key for key, value in model.items() if key not in known and value is not None]
    if any(held.get("dynamic_loss_scale") for held in optimizers):
        left_out.append("the loss scale")
    return assemble(weights, extra, state, None, done, left_out)


def _weight(folder: Path, name: str, value: Any, files: _Files, parts: Partitions) -> LazyTensor:
    """A parameter from the partitions; or a frozen one or a buffer, floats as fp32."""
    if name in parts.shapes:
        return parts.weight(name)
    frozen = files.models[0].get("frozen_param_shapes") or {}
    pieces, shape = [value], tuple(frozen.get(name, getattr(value, "shape", ())))
    if name in frozen:
        pieces = [held["frozen_param_fragments"][name].reshape(-1) for held in files.models]  # stage 3: of each rank
    elif not isinstance(value, torch.Tensor) or (len(files.models) > 1 and name not in files.models[0]["buffer_names"]):
        raise UsageError(f"{folder}: {name} is neither a trained nor a frozen parameter nor a buffer of this save")

    def load() -> torch.Tensor:
        whole = torch.cat([piece.reshape(-1) for piece in pieces])[: math.prod(shape)].reshape(shape)
        return whole.float() if whole.is_floating_point() else whole

    dtype = torch.float32 if pieces[0].is_floating_point() else pieces[0].dtype
    check_dtype(dtype, name)
    return lazy(dtype, shape, load)


def _open(folder: Path) -> _Files:
    """All files of the save, mapped into memory."""
    found: dict[str, dict[int, Path]] = {"model": {}, "optim": {}}
    for file in folder.iterdir():
        match = _RANK.search(file.name)
        if match:
            found[match[3]][int(match[1])] = file
    ranks = len(found["optim"])
    if not ranks or sorted(found["optim"]) != list(range(ranks)):
        raise UsageError(
            f"{folder}: of {max(found['optim'], default=0) + 1} files *_optim_states.pt, {ranks} are there"
        )
    optimizers = []
    for rank in range(ranks):
        held = torch_file.load(found["optim"][rank], _KNOWN).get("optimizer_state_dict")
        if not isinstance(held, Mapping) or "zero_stage" not in held:
            raise UsageError(f"{found['optim'][rank]} is no optimizer's part of ZeRO 1, 2 or 3, as DeepSpeed saves it")
        optimizers.append(held)
    expected = optimizers[0].get("partition_count")
    expected = max(expected) if isinstance(expected, (list, tuple)) else expected
    if expected != ranks:
        raise UsageError(f"{folder}: {ranks} files *_optim_states.pt are there, but {expected} ranks saved")
    single = folder / "mp_rank_00_model_states.pt"
    files = [single] if single.is_file() else [found["model"][rank] for rank in sorted(found["model"])]
    if not single.is_file() and len(files) != ranks:
        raise UsageError(f"{folder}: of {ranks} files *_model_states.pt, {len(files)} are there")
    models = [torch_file.load(file, _KNOWN) for file in files]
    lacking = [key for key in ("module", "param_shapes", "buffer_names") if models[0].get(key) is None]
    if lacking:
        raise UsageError(f"{files[0]} lacks {', '.join(lacking)}; it was saved by another version, or without weights")
    return _Files(models, optimizers)


def _parts(folder: Path, files: _Files) -> Partitions:
    stage = int(files.optimizers[0]["zero_stage"])
    shapes: list[Shapes] = [
        {name: tuple(shape) for name, shape in group.items()} for group in files.models[0]["param_shapes"]
    ]
    try:
        return (stage3 if stage == 3 else stage2)(shapes, files.optimizers)
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise UsageError(
            f"{folder}: the optimizer's files of ZeRO stage {stage} are not laid out as DeepSpeed 0.19 does "
            f"({type(error).__name__}: {error}); convert with its own zero_to_fp32.py, then that file"
        ) from None


def _refuse_parallel(folder: Path) -> None:
    for file in sorted(folder.iterdir()):
        match = re.search(r"mp_rank_(\d+)", file.name)
        if (match and int(match[1]) > 0) or file.name.startswith(("layer_", "expp_rank_")) or "expert" in file.name:
            raise UsageError(
                f"{folder} is of a run with tensor, pipeline or expert parallelism ({file.name}); only data-parallel "
                "runs (ZeRO 0 to 3) are converted"
            )
