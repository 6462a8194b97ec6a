"""Every strategy on every number of ranks saves, and each of them restores what each has saved: the ranks' programs.

What a rank holds is read by the means of torch and of DeepSpeed, and not by those that the checkpointer uses.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict

import dist_toolkit as dtk
from dist_toolkit.strategies import Strategy
from tests.multiproc.training import digest

RANKS = (1, 2, 4)
"""Numbers of ranks that save and restore."""


@dataclass(frozen=True)
class Kind:
    """A strategy in the matrix.

    Attributes:
        ranks: the numbers of ranks that it is run on.
    """

    strategy: Strategy
    ranks: tuple[int, ...] = RANKS


KINDS = {
    "single": Kind(dtk.Single(), (1,)),
    "data_parallel": Kind(dtk.DataParallel(), (1,)),
    "ddp": Kind(dtk.DDP()),
    "fsdp": Kind(dtk.FSDP(wrap=("Block",))),
    "hybrid": Kind(dtk.FSDP(wrap=("Block",), replicas=2), (2, 4)),
    "zero1": Kind(dtk.DeepSpeed(stage=1)),
    "zero2": Kind(dtk.DeepSpeed(stage=2)),
    "zero3": Kind(dtk.DeepSpeed(stage=3)),
}
CASES = tuple((name, ranks) for ranks in RANKS for name, kind in KINDS.items() if ranks in kind.ranks)
"""Each (strategy, number of ranks) that saves and restores."""


def on(ranks: int) -> list[str]:
    """The strategies that run on so many ranks."""
    return [name for name, kind in KINDS.items() if ranks in kind.ranks]


class Block(nn.Module):
    """Sizes that no number of ranks divides; a table of three dimensions; running statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.norm, self.down = nn.Linear(5, 3, False), nn.BatchNorm1d(3), nn.Linear(3, 5, False)
        self.cube = nn.Parameter(torch.randn(3, 2, 5) / 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.tanh(self.norm(self.up(x)))
        return x + self.down(hidden) + (hidden @ self.cube.flatten(1)).unflatten(-1, (2, 5)).sum(-2)


class Model(nn.Module):
    """What goes wrong elsewhere: a tied weight, a frozen layer, one element, fewer rows than ranks, integer buffers."""

    def __init__(self, fixed: float) -> None:
        super().__init__()
        self.embed, self.block = nn.Embedding(7, 5), Block()
        self.fixed, self.out = nn.Linear(5, 5).requires_grad_(False), nn.Linear(5, 7, bias=False)
        self.scale, self.pair = nn.Parameter(torch.ones(1)), nn.Parameter(torch.randn(2, 9) / 4)
        self.register_buffer("seen", torch.zeros(3, dtype=torch.int64))
        nn.init.constant_(self.fixed.bias, fixed)
        self.out.weight = self.embed.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.seen.add_(tokens.sum())
        x = self.fixed(self.block(self.embed(tokens)))
        return self.out(x) * self.scale + F.pad(x, (0, 4)) @ self.pair.T @ self.pair[:, :7]


def two_groups(parameters: Any) -> torch.optim.Optimizer:
    """AdamW with weight decay for matrices alone; eps: Adam blows rounding up where gradients are near 0."""
    trained = list(parameters)
    decayed, others = [p for p in trained if p.ndim > 1], [p for p in trained if p.ndim == 1]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0, "lr": 0.02}]
    return torch.optim.AdamW(groups, lr=0.01, eps=1e-3)


def two_phases(optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
    """A warm-up, and a cosine after it."""
    warm = torch.optim.lr_scheduler.LinearLR(optimizer, 0.25, 1.0, total_iters=4)
    cool = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=30)
    return torch.optim.lr_scheduler.SequentialLR(optimizer, [warm, cool], [4])


def make(rt: dtk.Runtime, name: str, fixed: float) -> dtk.Engine:
    """An engine of this strategy; all start from the same weights, but for what is not trained."""
    rt._engines = 0
    options = {"scheduler": two_phases, "precision": "fp16", "ema": dtk.EMA(0.5)}
    return rt.setup(partial(Model, fixed), two_groups, strategy=KINDS[name].strategy, **options)


def tokens(seed: int) -> torch.Tensor:
    return torch.randint(0, 7, (12,), generator=torch.Generator().manual_seed(seed))


def update(engine: dtk.Engine, batch: torch.Tensor, factor: float = 1.0) -> bool:
    """One step."""
    loss = F.cross_entropy(engine(batch), batch.roll(1)) / 64  # else the first scale, 65536, overflows by itself
    engine.backward(loss * factor)
    return engine.step()


# --- what a rank holds ----------------------------------------------------------------------------------------------


def state_of(engine: dtk.Engine) -> dict[str, str]:
    """Digests of the whole state, by name; they are of tensors, and of plain values as JSON. Collective."""
    zero = getattr(engine, "_zero", None)
    found = {name: _digest(tensor) for name, tensor in (_of_torch(engine) if zero is None else _of_deepspeed(engine))}
    with engine.averaged():
        found |= {f"average {name}": _digest(tensor) for name, tensor in _weights(engine)}
    assert engine.module.out.weight is engine.module.embed.weight
    assert engine.scheduler is not None
    assert engine._scaler is not None
    plain = {
        "groups": [{k: v for k, v in group.items() if k != "params"} for group in engine.optimizer.param_groups],
        "schedule": engine.scheduler.state_dict(),
        "loss scale": [engine._scaler.value, engine._scaler.state_dict()["steps_since"]],
    }
    return found | {name: json.dumps(value, default=float, sort_keys=True) for name, value in plain.items()}


def _digest(tensor: torch.Tensor) -> str:
    """Of type, shape and bytes; but for the sign of a zero, which DeepSpeed's sum over ranks drops."""
    return f"{tensor.dtype} {list(tensor.shape)} {digest({'': tensor + 0})}"


def _of_torch(engine: dtk.Engine) -> Iterator[tuple[str, torch.Tensor]]:
    """By torch.distributed.checkpoint.state_dict, which knows one process, DDP and fully_shard."""
    whole = StateDictOptions(full_state_dict=True)
    model, optimizer = get_state_dict(engine.module, engine.optimizer, options=whole)
    for name, tensor in model.items():
        yield f"model {name}", tensor
    for name, state in optimizer["state"].items():
        for key, value in state.items():
            yield f"{key} {name}", value


def _of_deepspeed(engine: dtk.Engine) -> Iterator[tuple[str, torch.Tensor]]:
    """By DeepSpeed's own means of looking at a parameter's state."""
    utils: Any = importlib.import_module("deepspeed.utils")
    zero: Any = engine._zero
    if not hasattr(zero, "fp16_groups"):
        zero._hp_optimizer_states_linked = False  # it looks once, before there are moments
        zero._lazy_init_hp_params_optimizer_state()
    for name, tensor in _weights(engine):
        yield f"model {name}", tensor
        if name == "embed.weight":
            yield "model out.weight", tensor
    for name, parameter in engine.module.named_parameters():
        if parameter.requires_grad:
            for key in ("exp_avg", "exp_avg_sq"):
                yield f"{key} {name}", utils.safe_get_full_optimizer_state(parameter, key).view(_shape(parameter))
            yield f"step {name}", _step_of(zero, parameter)
    for name, buffer in engine.module.named_buffers():
        yield f"model {name}", buffer


def _weights(engine: dtk.Engine) -> Iterator[tuple[str, torch.Tensor]]:
    """Whole fp32 weights, one at a time; DeepSpeed's by its own means. Collective."""
    for name, parameter in engine.module.named_parameters():
        if not hasattr(engine, "_zero"):
            yield name, _whole(parameter.detach())
        elif parameter.requires_grad:
            utils: Any = importlib.import_module("deepspeed.utils")
            yield name, utils.safe_get_full_fp32_param(parameter).view(_shape(parameter))
        else:
            gathered: Any = importlib.import_module("deepspeed.runtime.zero").GatheredParameters
            with gathered([parameter], enabled=hasattr(parameter, "ds_id")):
                yield name, parameter.detach().clone()


def _step_of(zero: Any, parameter: nn.Parameter) -> torch.Tensor:
    """The step count of the flat tensor that the parameter is updated in."""
    stage3 = hasattr(zero, "fp16_groups")
    flats = zero.fp32_partitioned_groups_flat if stage3 else zero.single_partition_of_fp32_groups
    groups = zero.fp16_groups if stage3 else zero.bit16_groups
    flat = next(flat for flat, group in zip(flats, groups, strict=True) if any(p is parameter for p in group))
    step: torch.Tensor = zero.optimizer.state[flat]["step"]
    return step


def _shape(parameter: nn.Parameter) -> torch.Size:
    return torch.Size(getattr(parameter, "ds_shape", parameter.shape))


def _whole(tensor: Any) -> torch.Tensor:
    """A tensor that is split over the ranks, put together."""
    whole: torch.Tensor = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return whole


# --- the programs of the ranks --------------------------------------------------------------------------------------


def folder_of(root: str, name: str, ranks: int) -> Path:
    return Path(root) / f"{name}-{ranks}"


def history_of(name: str, ranks: int) -> tuple[int, int]:
    """Steps that this case makes before it saves, and how many of them overflow; no two cases in a row have the same.

    Each overflow halves the loss scale.
    """
    number = CASES.index((name, ranks))
    return 3 + number % 5 + number % 3, number % 3


def save_all(root: str, ranks: int) -> dict[str, dict[str, Any]]:
    """Train and save with each strategy; by strategy, the state that was saved and the losses of what came next."""
    found = {}
    with dtk.init(seed=1) as rt:
        for name in on(ranks):
            engine, (steps, overflows) = make(rt, name, CASES.index((name, ranks))), history_of(name, ranks)
            for step in range(steps):
                skipped = 1 <= step <= overflows
                mine = tokens(1000 * CASES.index((name, ranks)) + 10 * step + rt.world.rank)
                assert update(engine, mine, factor=torch.inf if skipped else 1.0) != skipped
            rt.checkpointer(folder_of(root, name, ranks), engine=engine).save(steps)
            found[name] = state_of(engine) | {"losses": losses_after(engine)}
    return found


def restore_all(root: str, ranks: int) -> dict[str, dict[str, dict[str, Any]]]:
    """By strategy, and by the folder of what was saved: the state after a restore.

    Where it was saved on as many ranks, the losses of what comes next too.
    """
    found = {}
    with dtk.init(seed=2) as rt:
        for number, name in enumerate(on(ranks)):
            engine = make(rt, name, -1.0)
            seen: dict[str, dict[str, Any]] = {}
            for saved in (*CASES[number:], *CASES[:number]):  # the first one comes to a new engine
                folder = folder_of(root, *saved)
                assert rt.checkpointer(folder, engine=engine, waive=["strategy"]).restore() == history_of(*saved)[0]
                seen[folder.name] = state_of(engine)
                if saved[1] == ranks:
                    seen[folder.name]["losses"] = losses_after(engine)
            found[name] = seen
    return found


def losses_after(engine: dtk.Engine) -> list[float]:
    """Of two more steps, with the same samples on every rank."""
    found = []
    for step in range(2):
        batch = tokens(step)
        loss = F.cross_entropy(engine(batch), batch.roll(1))
        engine.backward(loss / 64)
        assert engine.step()
        found.append(loss.item())
    return found
