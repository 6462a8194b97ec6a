"""Others' checkpoints, converted, and restored by the runtime: weights, both moments and steps to the bit."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict
from torch.distributed.fsdp import fully_shard

import dist_toolkit as dtk
from dist_toolkit.checkpoint.tool.app import main
from dist_toolkit.runtime import Runtime
from dist_toolkit.strategies.deepspeed_load import load_deepspeed, quiet
from dist_toolkit.testing import run_ranks

pytestmark = pytest.mark.multiproc

STEPS = 3
Tensors = dict[str, torch.Tensor]


class Net(nn.Module):
    """Odd sizes, running statistics, a weight of one element, something frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.norm, self.out = nn.Linear(5, 7), nn.BatchNorm1d(7), nn.Linear(7, 3)
        self.scale = nn.Parameter(torch.tensor([1.5]))
        self.fixed = nn.Linear(3, 3).requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fixed(self.out(self.norm(self.inner(x)))) * self.scale


def build() -> Net:
    torch.manual_seed(0)
    return Net()


def two_groups(parameters: Iterable[torch.Tensor]) -> torch.optim.Optimizer:
    """Matrices decay, the rest does not: the optimizer's order is not the model's."""
    given = list(parameters)
    matrices, rest = [p for p in given if p.ndim > 1], [p for p in given if p.ndim < 2]
    return torch.optim.AdamW([{"params": matrices, "lr": 0.01, "weight_decay": 0.1}, {"params": rest}], lr=0.02)


def trained(model: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def batch(step: int, rank: int = 0) -> torch.Tensor:
    return torch.randn(4, 5, generator=torch.Generator().manual_seed(10 * step + rank))


def train(model: nn.Module, optimizer: torch.optim.Optimizer, rank: int = 0) -> None:
    for step in range(STEPS):
        model(batch(step, rank)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()


def whole(tensor: torch.Tensor) -> torch.Tensor:
    return (tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor).detach().clone()


def truth(model: nn.Module, optimizer: torch.optim.Optimizer) -> Tensors:
    """Every tensor under its canonical name, as the foreign tool's own objects hold it. Collective."""
    found = {f"model.{name}": whole(tensor) for name, tensor in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        found |= {f"optim.{name}.{key}": whole(value) for key, value in optimizer.state.get(parameter, {}).items()}
    return found


def assert_restored(rt: Runtime, root: str, strategy: Any, expected: Tensors, step: int = STEPS) -> dtk.Engine:
    engine = rt.setup(Net, two_groups, strategy=strategy)
    assert rt.checkpointer(root, engine=engine).restore() == step
    state = engine.state_dict()
    found = {name: whole(tensor) for name, tensor in state.items() if isinstance(tensor, torch.Tensor)}
    assert set(found) == set(expected), (root, strategy)
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), (root, strategy, name)
        assert found[name].dtype == tensor.dtype
    groups = state["optim_groups"]["groups"]
    assert [(group["lr"], group["weight_decay"]) for group in groups] == [(0.01, 0.1), (0.02, 0.01)]
    return engine


def convert(rt: Runtime, *words: object) -> Any:
    """`dtk ckpt convert` on rank 0, while the others wait; what it says with --json."""
    said: Any = {}
    if rt.world.is_main:
        with contextlib.redirect_stdout(io.TextIOWrapper(io.BytesIO(), write_through=True)) as out:
            assert main(["convert", *map(str, words), "--json"]) == 0
            said = json.loads(out.buffer.getvalue())
            assert main(["verify", said["root"]]) == main(["ls", said["root"]]) == 0
    rt.group.barrier()
    return said


# --- what each tool saves: each runs on both ranks ---


def from_deepspeed(rt: Runtime, stage: int, folder: Path) -> None:
    deepspeed = load_deepspeed(rt.device)
    model = build()
    zero: dict[str, Any] = {"stage": stage, "reduce_bucket_size": 1000}
    if stage == 3:  # some weights stay whole; the groups are cut into several flat tensors
        zero |= {"stage3_param_persistence_threshold": 5, "sub_group_size": 20}
    config = {
        "train_micro_batch_size_per_gpu": 4, "zero_optimization": zero, "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False, "steps_per_print": 10**9,
    }  # fmt: skip
    with quiet():
        engine, *_ = deepspeed.initialize(model=model, optimizer=two_groups(trained(model)), config=config)
        for step in range(STEPS):
            engine.backward(engine(batch(step, rt.world.rank)).square().mean())
            engine.step()
        engine.save_checkpoint(str(folder / f"zero{stage}"))
        expected = truth_of_zero(deepspeed, engine) if stage else truth(model, engine.optimizer)
    options = []
    if stage == 0:  # state by number: the file does not say whose it is
        names = {p: n for n, p in model.named_parameters()}
        order = [names[p] for group in engine.optimizer.param_groups for p in group["params"]]
        (folder / "names.json").write_text(json.dumps(order))
        options = ["--param-names", folder / "names.json"]
    engine.destroy()
    converted = convert(rt, folder / f"zero{stage}", folder / f"from-zero{stage}", *options)
    assert not rt.world.is_main or (converted["from"], converted["optimizer"]) == ("deepspeed", True)
    buffers = {f"model.{name}" for name, _ in build().named_buffers()}  # of rank 0: the others' are not saved
    expected |= rt.broadcast_object({name: expected[name] for name in sorted(buffers)})
    assert_restored(rt, str(folder / f"from-zero{stage}"), "fsdp", expected)
    if stage == 3:
        assert_restored(rt, str(folder / "from-zero3"), "ddp", expected)
        assert_restored(rt, str(folder / "from-zero3"), dtk.DeepSpeed(stage=3), expected)


def truth_of_zero(deepspeed: Any, engine: Any) -> Tensors:
    """By DeepSpeed's own functions for debugging. Collective."""
    found: Tensors = {}
    if engine.zero_optimization_stage() < 3:  # its functions hold what the state was at the first step: nothing
        engine.optimizer._hp_optimizer_states_linked = False
        engine.optimizer._lazy_init_hp_params_optimizer_state()
    for name, parameter in engine.module.named_parameters():
        if not parameter.requires_grad:
            with deepspeed.zero.GatheredParameters([parameter]):
                found[f"model.{name}"] = parameter.detach().clone()
            continue
        found[f"model.{name}"] = deepspeed.utils.safe_get_full_fp32_param(parameter).clone()
        for key in ("exp_avg", "exp_avg_sq"):
            found[f"optim.{name}.{key}"] = deepspeed.utils.safe_get_full_optimizer_state(parameter, key).clone()
        found[f"optim.{name}.step"] = torch.tensor(float(STEPS))
    return found | {f"model.{name}": buffer.clone() for name, buffer in engine.module.named_buffers()}


def from_dcp(rt: Runtime, folder: Path) -> None:
    """Sharded tensors on two ranks, in both forms of torch's state_dict functions."""
    model = build()
    for part in (model.inner, model.out, model):
        fully_shard(part)
    optimizer = two_groups(trained(model))
    train(model, optimizer)
    expected = truth(model, optimizer)
    for name, flat in (("nested", False), ("flat", True)):
        weights, state = get_state_dict(model, optimizer, options=StateDictOptions(flatten_optimizer_state_dict=flat))
        dcp.save({"model": weights, "optim": state, "epoch": 1}, checkpoint_id=folder / name)
        said = convert(rt, folder / name, folder / f"from-{name}")
        assert not rt.world.is_main or said["notes"] == ["left out: epoch"]
        assert_restored(rt, str(folder / f"from-{name}"), "fsdp", expected)


def two_ranks(folder: str) -> None:
    with dtk.init(seed=0) as rt:
        from_dcp(rt, Path(folder))
        for stage in (0, 1, 2, 3):
            from_deepspeed(rt, stage, Path(folder))


def test_dcp_and_deepspeed_of_two_ranks(tmp_path: Path) -> None:
    run_ranks(two_ranks, 2, str(tmp_path), timeout=240)


def one_rank(folder: str) -> None:
    os.chdir(folder)
    with dtk.init(seed=0) as rt:
        model = build()
        optimizer = two_groups(trained(model))
        rates = torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
        train(model, optimizer)
        expected = truth(model, optimizer)
        torch.save(
            {"model": {f"module.{name}": tensor for name, tensor in model.state_dict().items()},
             "optimizer": optimizer.state_dict(), "scheduler": rates.state_dict(), "epoch": 1},
            "run.pt",
        )  # fmt: skip
        dcp.save({"app": {"model": model.state_dict(), "optimizer": optimizer.state_dict()}}, checkpoint_id="raw")
        names = {parameter: name for name, parameter in model.named_parameters()}
        order = [names[parameter] for group in optimizer.param_groups for parameter in group["params"]]
        Path("names.json").write_text(json.dumps(order))
        for source in ("run.pt", "raw"):
            convert(rt, source, f"from-{source}", "--param-names", "names.json")
            engine = assert_restored(rt, f"from-{source}", "single", expected)
        model(batch(9)).square().mean().backward()
        optimizer.step()
        engine.backward(engine(batch(9)).square().mean())
        engine.step()
        after = engine.state_dict()
        assert all(torch.equal(after[name], tensor) for name, tensor in truth(model, optimizer).items())
        rt.checkpointer("from-raw", engine=engine).save(STEPS + 1)
        weights_alone(rt, model)


def weights_alone(rt: Runtime, model: nn.Module) -> None:
    """The optimizer is left as it is; a schedule is converted when it is asked for."""
    torch.save(model.state_dict(), "weights.pt")
    said = convert(rt, "weights.pt", "from-weights", "--step", 7)
    assert (said["optimizer"], said["step"]) == (False, 7)
    engine = rt.setup(Net, two_groups, strategy="single")
    with mock.patch.object(logging.getLogger("dist_toolkit"), "info") as info:
        assert rt.checkpointer("from-weights", engine=engine).restore() == 7
    said = [call.args[0] % call.args[1:] for call in info.call_args_list]
    assert [words for words in said if "converted" in words or "saved on" in words] == [
        "it was converted from another program's: new random streams (dropout)"
    ]
    state = engine.state_dict()
    assert all(torch.equal(state[f"model.{name}"], tensor) for name, tensor in model.state_dict().items())
    assert not [name for name in state if name.startswith("optim.")]
    convert(rt, "run.pt", "with-schedule", "--param-names", "names.json", "--scheduler-key", "scheduler")
    constant = torch.optim.lr_scheduler.ConstantLR
    engine = rt.setup(Net, two_groups, strategy="single", scheduler=lambda o: constant(o, factor=1.0, total_iters=9))
    assert rt.checkpointer("with-schedule", engine=engine).restore() == STEPS
    assert engine.scheduler.total_iters == 5


def test_torch_files_and_raw_dcp_go_on_as_if_never_stopped(tmp_path: Path) -> None:
    run_ranks(one_rank, 1, str(tmp_path))
