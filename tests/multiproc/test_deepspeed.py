"""DeepSpeed on two ranks: what the conformance suite does not ask of every strategy. All stages in one start."""

from __future__ import annotations

import copy
import io
import json
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from torch import nn

import dist_toolkit as dtk
from dist_toolkit.errors import ConfigError, PeerError
from dist_toolkit.runtime import Runtime
from dist_toolkit.strategies.deepspeed_load import load_deepspeed
from dist_toolkit.testing import run_ranks
from tests.multiproc.training import digest

pytestmark = pytest.mark.multiproc

STAGES = (0, 1, 2, 3)
ADAM = partial(torch.optim.AdamW, lr=0.01, weight_decay=0.1, eps=1e-4)
SGD = partial(torch.optim.SGD, lr=0.1)


class Net(nn.Module):
    """Odd sizes, a parameter of one element, two ways through, running statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.norm = nn.Linear(5, 7), nn.Linear(5, 7), nn.BatchNorm1d(7)
        self.out, self.scale = nn.Linear(7, 3), nn.Parameter(torch.tensor(1.5))

    def forward(self, x: torch.Tensor, both: bool = True, norm: bool = False) -> torch.Tensor:
        hidden = self.left(x) + self.right(x) if both else self.left(x)
        hidden = self.norm(hidden) if norm else hidden
        return self.out(torch.tanh(hidden)) * self.scale


def batch(step: int) -> torch.Tensor:
    return torch.randn(8, 5, generator=torch.Generator().manual_seed(step))


def mine(rt: Runtime, tensor: torch.Tensor) -> torch.Tensor:
    return tensor.chunk(rt.world.world_size)[rt.world.rank]


def weights(engine: dtk.Engine) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in engine.named_weights()}


def assert_same(engine: dtk.Engine, reference: nn.Module, tolerance: float = 1e-6) -> None:
    found = weights(engine)
    for name, expected in reference.named_parameters():
        torch.testing.assert_close(found[name], expected.detach(), rtol=tolerance, atol=tolerance)


def reference_of(engine: dtk.Engine, make: Callable[[], nn.Module] = Net) -> nn.Module:
    """One process's model with the engine's weights."""
    model = make()
    model.load_state_dict(weights(engine), strict=False)
    return model


# --- the checks: each runs on both ranks ---


def from_a_file(rt: Runtime, stage: int, folder: Path) -> None:
    """Optimizer, schedule and clipping of a ds_config; without a word on stdout."""
    path = folder / f"ds-{stage}.json"
    if rt.world.is_main:
        config = {
            "optimizer": {"type": "AdamW", "params": {"lr": 0.01, "weight_decay": 0.1, "eps": 1e-4}},
            "scheduler": {
                "type": "WarmupLR",
                "params": {
                    "warmup_min_lr": 0.001,
                    "warmup_max_lr": 0.01,
                    "warmup_num_steps": 4,
                    "warmup_type": "linear",
                },
            },
            "gradient_clipping": 0.05,
            "zero_optimization": {"stage": stage},
            "train_micro_batch_size_per_gpu": 4,
            "train_batch_size": 8,
            "steps_per_print": 1,
        }
        path.write_text(json.dumps(config))
    rt.group.barrier()
    said = io.StringIO()
    with redirect_stdout(said):
        engine = rt.setup(Net, strategy=dtk.DeepSpeed(config=path))
        reference = reference_of(engine)
        plain = ADAM(reference.parameters())
        rates = []
        for step in range(4):
            rates.append(engine.optimizer.param_groups[0]["lr"])
            plain.param_groups[0]["lr"] = rates[-1]
            engine.backward(engine(mine(rt, batch(step))).square().mean())
            assert engine.step()
            plain.zero_grad()
            reference(batch(step)).square().mean().backward()
            _zeros(reference)
            assert torch.nn.utils.clip_grad_norm_(reference.parameters(), 0.05) > 0.05
            plain.step()
    assert said.getvalue() == ""
    assert rates == sorted(rates)
    assert rates[0] < rates[-1] <= 0.01
    assert_same(engine, reference)
    engine.backward(engine(mine(rt, batch(9))).square().mean())
    with pytest.raises(ConfigError, match=r"gradient_clipping is 0\.05"):
        engine.clip_grad_norm(1.0)


def forgotten(rt: Runtime, stage: int, folder: Path) -> None:
    """zero_grad after a backward of one's own, and of another engine's loss; twice as many backwards as steps."""
    engine = rt.setup(Net, ADAM, strategy=dtk.DeepSpeed(stage=stage))
    other = rt.setup(lambda: nn.Linear(5, 5), SGD, strategy=dtk.DeepSpeed(stage=stage))
    reference = reference_of(engine)
    plain = ADAM(reference.parameters())
    for step in range(3):
        engine.backward(engine(mine(rt, batch(50 + step))).sum() * 100)
        engine.clip_grad_norm(1e-3)
        engine.zero_grad()
        other.backward(engine(other(mine(rt, batch(step)))).square().mean())
        other.step()
        engine.zero_grad()
        for part in (0, 1):  # without accumulate: gradients add up
            engine.backward(engine(mine(rt, batch(step))[part * 2 : part * 2 + 2]).square().mean() / 2)
        plain.zero_grad()
        reference(batch(step)).square().mean().backward()
        _zeros(reference)
        expected = torch.nn.utils.clip_grad_norm_(reference.parameters(), 0.1)
        torch.testing.assert_close(engine.clip_grad_norm(0.1), expected, rtol=1e-5, atol=1e-6)
        found = dict(engine.named_gradients())
        for name, parameter in reference.named_parameters():
            torch.testing.assert_close(found[name], parameter.grad, rtol=1e-5, atol=1e-6)
        engine.step()
        plain.step()
    assert_same(engine, reference)


def unused_later(rt: Runtime, stage: int, folder: Path) -> None:
    """A way through the model that one step takes and the next does not: no gradient of the first is used again."""
    engine = rt.setup(Net, SGD, strategy=dtk.DeepSpeed(stage=stage))
    for both in (True, False, True, False):
        before = weights(engine)
        for part in mine(rt, batch(int(both))).chunk(2):
            engine.backward(engine(part, both).square().mean())
        engine.step()
        after = weights(engine)
        assert torch.equal(before["right.weight"], after["right.weight"]) == (not both)
        assert not torch.equal(before["left.weight"], after["left.weight"])


def parameter_groups(rt: Runtime, stage: int, folder: Path) -> None:
    """Two groups with rates of their own, under a schedule; the optimizer as an object, over a given module."""

    def groups(model: nn.Module) -> torch.optim.Optimizer:
        first = [model.out.weight, model.scale]
        rest = [p for name, p in model.named_parameters() if name not in ("out.weight", "scale")]
        parts = [{"params": first}, {"params": rest, "lr": 0.5}]
        return torch.optim.SGD(parts, lr=0.1, momentum=0.9)

    torch.manual_seed(rt.world.rank)  # ranks' modules differ: rank 0's weights count
    module = Net()
    schedule = partial(torch.optim.lr_scheduler.ExponentialLR, gamma=0.5)
    engine = rt.setup(module, groups(module), scheduler=schedule, strategy=dtk.DeepSpeed(stage=stage))
    reference = reference_of(engine)
    plain = groups(reference)
    follow = schedule(plain)
    for step in range(3):
        engine.backward(engine(mine(rt, batch(step))).square().mean())
        engine.step()
        plain.zero_grad()
        reference(batch(step)).square().mean().backward()
        _zeros(reference)
        plain.step()
        follow.step()
    assert_same(engine, reference)
    saved = engine.state_dict()["optim_groups"]["groups"]
    assert [(group["lr"], group["params"][:2]) for group in saved] == [
        (0.0125, ["out.weight", "scale"]),
        (0.0625, ["left.weight", "left.bias"]),
    ]


def other_optimizers(rt: Runtime, stage: int, folder: Path) -> None:
    """Adagrad, which DeepSpeed makes anew, and RMSprop."""
    for kind in (torch.optim.Adagrad, torch.optim.RMSprop):
        engine = rt.setup(Net, partial(kind, lr=0.01), strategy=dtk.DeepSpeed(stage=stage))
        reference = reference_of(engine)
        plain = kind(reference.parameters(), lr=0.01)
        for step in range(2):
            engine.backward(engine(mine(rt, batch(step))).square().mean())
            engine.step()
            plain.zero_grad()
            reference(batch(step)).square().mean().backward()
            plain.step()
        assert_same(engine, reference, 1e-5)


def buffers(rt: Runtime, stage: int, folder: Path) -> None:
    """Running statistics differ between ranks while training; evaluation and checkpoints have rank 0's."""
    engine = rt.setup(Net, SGD, strategy=dtk.DeepSpeed(stage=stage), precision="bf16")
    engine.backward(engine(mine(rt, batch(1)), norm=True).square().mean())
    engine.step()
    with engine.evaluating():
        outputs = rt.group.all_gather(engine(batch(2), norm=True))
    assert torch.equal(outputs[0], outputs[1])
    assert outputs[0].dtype == torch.float32
    assert engine.module.norm.running_mean.abs().sum() > 0
    means = rt.group.all_gather(engine.state_dict()["model.norm.running_mean"])
    assert torch.equal(means[0], means[1])
    net = Net()
    net.register_buffer("table", torch.full((2,), 3.0 + rt.world.rank))
    assert rt.setup(net, SGD, strategy=dtk.DeepSpeed(stage=stage)).module.table.tolist() == [3.0, 3.0]


def there_and_back(rt: Runtime, stage: int, folder: Path) -> None:
    """This stage -> ddp -> this stage: weights, moments, averages, step, rates are the same to the bit."""
    schedule = partial(torch.optim.lr_scheduler.ExponentialLR, gamma=0.9)
    frozen = {"right.weight", "right.bias"}

    def make() -> nn.Module:
        model = Net()
        model.right.requires_grad_(False)
        return model

    def setup(strategy: Any) -> dtk.Engine:
        return rt.setup(make, ADAM, scheduler=schedule, ema=dtk.EMA(0.5), strategy=strategy)

    def train(engine: dtk.Engine, first: int, last: int) -> None:
        for step in range(first, last):
            engine.backward(engine(mine(rt, batch(step))).square().mean())
            engine.step()

    def state(engine: dtk.Engine) -> dict[str, str]:
        parts = {key: _full(value) for key, value in engine.state_dict().items() if isinstance(value, torch.Tensor)}
        averages = engine.extra_parts()["ema"].state_dict()
        parts |= {key: _full(value) for key, value in averages.items() if isinstance(value, torch.Tensor)}
        assert all(p.dtype in (torch.float32, torch.int64) for p in parts.values())
        digests = {key: digest({key: tensor}) for key, tensor in parts.items()}
        return digests | {"rate": str(engine.optimizer.param_groups[0]["lr"]), "all": digest(weights(engine))}

    one = setup(dtk.DeepSpeed(stage=stage))
    train(one, 0, 3)
    saved = state(one)
    assert f"optim.{min(frozen)}.exp_avg" not in saved
    root = folder / f"back-{stage}"
    rt.checkpointer(root, engine=one).save(3)
    ddp = setup(dtk.DDP())
    assert rt.checkpointer(root, engine=ddp, waive=["strategy"]).restore() == 3
    assert state(ddp) == saved
    rt.checkpointer(root, engine=ddp, waive=["strategy"]).save(4)
    two = setup(dtk.DeepSpeed(stage=stage))
    train(two, 5, 6)
    assert rt.checkpointer(root, engine=two, waive=["strategy"]).restore() == 4
    assert state(two) == saved
    train(one, 3, 5)
    train(two, 3, 5)
    assert state(two) == state(one)


def offloaded(rt: Runtime, stage: int, folder: Path) -> None:
    """Optimizer state, and at stage 3 weights, in CPU memory; after a window that was abandoned, and with a bound."""
    if not stage:
        return
    engine = rt.setup(Net, ADAM, strategy=dtk.DeepSpeed(stage=stage, offload="cpu"))
    reference = reference_of(engine)
    plain = ADAM(reference.parameters())
    for step in range(3):
        engine.backward(engine(mine(rt, batch(70 + step))).sum())
        engine.zero_grad()
        for piece in engine.accumulate(mine(rt, batch(step)), 3):
            engine.backward(engine(piece).square().mean())
        plain.zero_grad()
        reference(batch(step)).square().mean().backward()
        expected = torch.nn.utils.clip_grad_norm_(reference.parameters(), 0.1)
        torch.testing.assert_close(engine.clip_grad_norm(0.1), expected, rtol=1e-5, atol=1e-6)
        engine.step()
        _zeros(reference)
        plain.step()
    assert_same(engine, reference)


def loss_scale(rt: Runtime, stage: int, folder: Path) -> None:
    """The file's first scale and interval; a checkpoint takes both on."""
    config = {"fp16": {"enabled": True, "initial_scale_power": 8, "loss_scale_window": 2, "hysteresis": 2}}
    strategy = dtk.DeepSpeed(stage, config=config)
    engine, other = (rt.setup(Net, SGD, strategy=strategy, precision="fp16") for _ in range(2))
    seen = []
    for step in range(3):
        engine.backward(engine(mine(rt, batch(step))).square().mean())
        assert engine.step()
        seen.append(engine.extra_parts()["scaler"].state_dict())
    assert [(now["scale"], now["steps_since"]) for now in seen] == [(256.0, 1), (512.0, 0), (512.0, 1)]
    rt.checkpointer(folder / f"scale-{stage}", engine=engine).save(1)
    rt.checkpointer(folder / f"scale-{stage}", engine=other).restore()
    for made in (engine, other):
        made.backward(made(mine(rt, batch(7))).square().mean())
        assert made.step()
    assert engine.extra_parts()["scaler"].state_dict() == other.extra_parts()["scaler"].state_dict()
    assert digest(weights(engine)) == digest(weights(other))


def split(rt: Runtime, stage: int, folder: Path) -> None:
    """What a rank keeps of weights and moments, counted in their storages; what it hands to a checkpoint."""
    engine = rt.setup(
        lambda: nn.Sequential(*[nn.Linear(64, 64) for _ in range(8)]), ADAM, strategy=dtk.DeepSpeed(stage=stage)
    )
    engine.backward(engine(torch.ones(2, 64)).square().mean())
    engine.step()
    whole = 4 * sum(tensor.numel() for _, tensor in engine.named_weights())
    moments = _bytes(t for state in engine.optimizer.state.values() for t in state.values() if t.ndim)
    kept = list(engine.module.parameters()) + [
        p.ds_tensor for p in engine.module.parameters() if hasattr(p, "ds_tensor")
    ]
    updated = [fragment.flat for fragment in getattr(engine, "_fragments", {}).values()]
    state = {key: value for key, value in engine.state_dict().items() if isinstance(value, torch.Tensor)}
    handed = [getattr(t, "_local_tensor", t) for key, t in state.items() if not key.endswith(".step")]
    shares = {
        "moments": moments / whole,
        "weights": _bytes([*kept, *updated]) / whole,
        "handed": _bytes(handed) / whole,
    }
    expected = {
        0: {"moments": 2.0, "weights": 1.0, "handed": 3.0},
        1: {"moments": 1.0, "weights": 1.5, "handed": 1.5},
        2: {"moments": 1.0, "weights": 1.5, "handed": 1.5},
        3: {"moments": 1.0, "weights": 0.5, "handed": 1.5},
    }[stage]
    assert shares == pytest.approx(expected, rel=0.03)


def refusals(rt: Runtime, stage: int, folder: Path) -> None:
    """At setup, with the same words on every rank."""

    def stepped() -> tuple[nn.Module, torch.optim.Optimizer]:
        model = Net()
        optimizer = ADAM(model.parameters())
        model(batch(0)).sum().backward()
        optimizer.step()
        return model, optimizer

    def partly(parameters: Any) -> torch.optim.Optimizer:
        return SGD(list(parameters)[1:])

    def refuse_file(config: dict[str, Any], optimizer: Any = None) -> None:
        rt.setup(Net, optimizer, strategy=dtk.DeepSpeed(stage, config=config))

    def own(parameters: Any) -> torch.optim.Optimizer:
        return SGD(parameters) if rt.world.is_main else ADAM(parameters)

    def broken() -> nn.Module:
        if rt.world.rank == 1:
            raise FileNotFoundError("no such file")
        return Net()

    strategy = dtk.DeepSpeed(stage=stage)
    misspelt = dtk.DeepSpeed(config={"zero_optimization": {"stage": stage, "bucket_sise": 3}})
    twice = dtk.DeepSpeed(stage, config={"optimizer": {"type": "AdamW"}})
    attempts: list[tuple[str, Callable[[], Any]]] = [
        ("keeps trained weights in fp32", lambda: rt.setup(lambda: Net().bfloat16(), SGD, strategy=strategy)),
        ("leaves out 1 trainable parameters of Net: scale", lambda: rt.setup(Net, partly, strategy=strategy)),
        ("zero_optimization.bucket_sise is unknown", lambda: rt.setup(Net, SGD, strategy=misspelt)),
        (
            "unknown to DeepSpeed; did you mean 'overlap_comm'",
            lambda: refuse_file({"zero_optimization": {"stage": stage, "overlap_com": True}}, SGD),
        ),
        (
            "DeepSpeed refuses.*reduce_bucket_size is 'big': ",
            lambda: refuse_file({"zero_optimization": {"stage": stage, "reduce_bucket_size": "big"}}, SGD),
        ),
        (
            "optimizer.params.learning_rate is unknown to 'AdamW'; did you mean 'lr'",
            lambda: refuse_file({"optimizer": {"type": "AdamW", "params": {"learning_rate": 0.1}}}),
        ),
        (
            "DeepSpeed refuses.* Adann is not",
            lambda: refuse_file({"optimizer": {"type": "Adann", "params": {}}}),
        ),
        (
            "scheduler.params.warmup is unknown to 'WarmupLR'",
            lambda: refuse_file({"scheduler": {"type": "WarmupLR", "params": {"warmup": 1}}}, SGD),
        ),
        ("Cosinus", lambda: refuse_file({"scheduler": {"type": "Cosinus"}}, SGD)),
        ("LBFGS", lambda: rt.setup(Net, torch.optim.LBFGS, strategy=strategy)),
        (
            r"the model .* out.weight is \[3, 7\] float32 on rank 0 and \[4, 7\] float32 on rank 1",
            lambda: rt.setup(lambda: widened(rt.world.rank), SGD, strategy=strategy),
        ),
        (
            "the merged ds_config .* prescale_gradients",
            lambda: refuse_file({"prescale_gradients": rt.world.is_main}, SGD),
        ),
        ("gradient_clip", lambda: refuse_file({"gradient_clip": 1} if rt.world.is_main else {}, SGD)),
        ("the optimizer .* type is SGD on rank 0 and AdamW on rank 1", lambda: rt.setup(Net, own, strategy=strategy)),
        ("optimizer is 'AdamW'", lambda: rt.setup(Net, SGD, strategy=twice)),
        ("there is no optimizer", lambda: rt.setup(Net, strategy=strategy)),
    ]
    if stage:
        attempts += [
            ("has been stepped already", lambda: rt.setup(*stepped(), strategy=strategy)),
            (
                "Adafactor cannot be used with DeepSpeed stage",
                lambda: rt.setup(Net, torch.optim.Adafactor, strategy=strategy),
            ),
            (
                "'Lamb' needs whole parameters",
                lambda: rt.setup(Net, strategy=dtk.DeepSpeed(stage, config={"optimizer": {"type": "Lamb"}})),
            ),
            (
                "sparse gradients of Embedding",
                lambda: rt.setup(lambda: nn.Embedding(3, 2, sparse=True), SGD, strategy=strategy),
            ),
        ]
    for words, attempt in attempts:
        with pytest.raises(ConfigError, match=words):
            attempt()
    with pytest.raises(PeerError if rt.world.is_main else FileNotFoundError, match="no such file"):
        rt.setup(broken, SGD, strategy=strategy)


def widened(by: int) -> nn.Module:
    net = Net()
    net.out = nn.Linear(7, 3 + by)
    return net


CHECKS = (
    from_a_file, forgotten, unused_later, parameter_groups, other_optimizers, buffers, there_and_back, offloaded,
    loss_scale, split, refusals,
)  # fmt: skip


def _zeros(model: nn.Module) -> None:
    """ZeRO has a gradient of zeros where one process has none."""
    for parameter in model.parameters():
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)


def _full(tensor: torch.Tensor) -> torch.Tensor:
    whole = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return whole.detach().clone()


def _bytes(tensors: Any) -> int:
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors if t.numel()}
    return sum(storages.values())


@contextmanager
def another_group(folder: Path) -> Iterator[None]:
    """The rendezvous of a second run in the same process."""
    os.environ["DTK_INIT_METHOD"] = f"file://{folder / 'second'}"
    yield


def program(folder: str) -> dict[str, Any]:
    """Every check at every stage; the traceback of the first that fails ends the run."""
    root = Path(folder)
    done: list[str] = []
    with dtk.init(seed=3) as rt:
        for stage in STAGES:
            for check in CHECKS:
                check(rt, stage, root)
                done.append(f"{check.__name__}-{stage}")
    threads = [thread.name for thread in threading.enumerate()]
    with another_group(root), dtk.init(seed=3) as rt:
        engine = rt.setup(Net, SGD, strategy=dtk.DeepSpeed(stage=3))
        engine.backward(engine(batch(0)).sum())
        again = engine.step()
    return {"done": done, "threads": threads, "accelerator": os.environ.get("DS_ACCELERATOR"), "again": again}


@cache
def ran() -> list[dict[str, Any]]:
    with TemporaryDirectory(prefix="dtk-deepspeed-") as folder:
        return run_ranks(program, 2, folder, timeout=240)


def saved_or_resumed(folder: str, stage: int, save: bool) -> dict[str, str]:
    """The weights, and the moments that a next step needs, after a save or after its restore."""
    with dtk.init(seed=3) as rt:
        engine = rt.setup(Net, ADAM, strategy=dtk.DeepSpeed(stage=stage))
        checkpointer = rt.checkpointer(folder, engine=engine)
        if save:
            engine.backward(engine(batch(0)).square().mean())
            engine.step()
            checkpointer.save(1)
        else:
            assert checkpointer.restore() == 1
        state = {key: _full(value) for key, value in engine.state_dict().items() if isinstance(value, torch.Tensor)}
        return {key: digest({key: value}) for key, value in state.items()}


def test_another_stage_on_another_number_of_ranks(tmp_path: Path) -> None:
    """Nothing divides anything: 3 ranks, then 2."""
    saved = run_ranks(saved_or_resumed, 3, str(tmp_path), 3, True)
    resumed = run_ranks(saved_or_resumed, 2, str(tmp_path), 1, False)
    assert saved[0] == saved[1] == saved[2] == resumed[0] == resumed[1]
    assert "optim.out.weight.exp_avg" in saved[0]


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("check", [check.__name__ for check in CHECKS])
def test_stage(check: str, stage: int) -> None:
    for rank in ran():
        assert f"{check}-{stage}" in rank["done"]


def test_nothing_is_left_behind() -> None:
    for rank in ran():
        assert rank["threads"] == ["MainThread"]
        assert rank["accelerator"] is None


def test_a_second_run_in_the_same_process() -> None:
    assert [rank["again"] for rank in ran()] == [True, True]


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "deepspeed", None)
    with pytest.raises(ConfigError, match=r"pip install 'dist-toolkit\[deepspeed\]'"):
        load_deepspeed(torch.device("cpu"))


def test_options_are_copied_values() -> None:
    assert copy.copy(dtk.DeepSpeed(stage=3)) == dtk.DeepSpeed(stage=3)
