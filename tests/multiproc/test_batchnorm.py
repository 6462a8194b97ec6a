"""sync_batchnorm: what nn.BatchNorm computes of the whole batch, on ranks that have unequal parts of it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import dist_toolkit as dtk
from dist_toolkit.errors import ConfigError
from dist_toolkit.testing import RanksFailed, run_ranks

pytestmark = pytest.mark.multiproc

Result = dict[str, torch.Tensor]
LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "1d": (partial(nn.BatchNorm1d, 3), ()),
    "1d of sequences": (partial(nn.BatchNorm1d, 3), (5,)),
    "2d": (partial(nn.BatchNorm2d, 3), (4, 2)),
    "3d": (partial(nn.BatchNorm3d, 3), (2, 3, 2)),
    "another momentum": (partial(nn.BatchNorm1d, 3, momentum=0.7), ()),
    "cumulative": (partial(nn.BatchNorm1d, 3, momentum=None), ()),
    "no affine": (partial(nn.BatchNorm1d, 3, affine=False), ()),
    "no running statistics": (partial(nn.BatchNorm1d, 3, track_running_stats=False), ()),
    "torch's own": (partial(nn.SyncBatchNorm, 3), (4,)),
}
BATCH = 11


def whole_batch(name: str, step: int) -> torch.Tensor:
    """Far from zero, so that sums of squares would lose digits."""
    shape = LAYERS[name][1]
    generator = torch.Generator().manual_seed(step)
    return 20.0 + 3.0 * torch.randn(BATCH, 3, *shape, generator=generator)


def made(name: str) -> nn.Module:
    """With weights that are not the initial ones."""
    module = LAYERS[name][0]()
    with torch.no_grad():
        for number, parameter in enumerate(module.parameters()):
            parameter.add_(torch.tensor([0.5, -0.25, 2.0]) * (number + 1))
    return module


def train(name: str, module: nn.Module, part: slice) -> Result:
    """Two training steps and an evaluation, of the rows of this rank; outputs, gradients and state."""
    found: Result = {}
    for step in range(2):
        x = whole_batch(name, step)[part].requires_grad_()
        output = module(x)
        (output**3).sum().backward()
        found |= {f"output {step}": output.detach(), f"gradient {step}": x.grad}
    found |= {f"{key}.grad": parameter.grad for key, parameter in module.named_parameters()}
    if name != "no running statistics":  # evaluation would take each rank's own
        module.eval()
        found["evaluated"] = module(whole_batch(name, 2)[part]).detach()
    return found | {f"state {key}": value.clone() for key, value in module.state_dict().items()}


def of_one_rank(first: int) -> dict[str, Result]:
    """Rank 0 has the first rows, rank 1 the others."""
    with dtk.init(seed=0) as rt:
        part = slice(0, first) if rt.world.rank == 0 else slice(first, BATCH)
        return {name: train(name, dtk.sync_batchnorm(made(name)), part) for name in LAYERS}


@pytest.mark.parametrize("first", [4, 11])
def test_two_ranks_compute_what_one_process_computes_of_the_whole_batch(first: int) -> None:
    one, other = run_ranks(of_one_rank, 2, first)
    for name in LAYERS:
        expected = train(name, made(name), slice(0, BATCH))
        assert one[name].keys() == expected.keys(), name
        for key, value in expected.items():
            if key.startswith(("output", "gradient", "evaluated")):
                ours = torch.cat([one[name][key], other[name][key]])
            elif key.endswith(".grad"):
                ours = one[name][key] + other[name][key]
            else:
                assert torch.equal(one[name][key], other[name][key]), f"{name}: {key} differs between the ranks"
                ours = one[name][key]
            scale = max(1.0, value.abs().max().item())
            assert (ours - value).abs().max().item() < 2e-5 * scale, f"{name}: {key}"


def on_one_rank() -> bool:
    with dtk.init(seed=0):
        ours, theirs = (train("2d", module, slice(0, BATCH)) for module in (dtk.sync_batchnorm(made("2d")), made("2d")))
        return all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_one_rank_is_plain_batch_normalisation() -> None:
    assert run_ranks(on_one_rank, 1) == [True]
    ours, theirs = (train("2d", module, slice(0, BATCH)) for module in (dtk.sync_batchnorm(made("2d")), made("2d")))
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def too_little(values: int) -> str:
    with dtk.init(seed=0) as rt:
        module = dtk.sync_batchnorm(nn.BatchNorm1d(3))
        rows = values if rt.world.rank == 0 else 0
        module(torch.ones(rows, 3))
        return "normalised"


def test_a_single_value_over_all_ranks_is_refused() -> None:
    with pytest.raises(RanksFailed, match="Expected more than 1 value per channel over all ranks"):
        run_ranks(too_little, 2, 1)
    assert run_ranks(too_little, 2, 2) == ["normalised"] * 2
    with pytest.raises(ValueError, match="Expected more than 1 value per channel"):
        dtk.sync_batchnorm(nn.BatchNorm1d(3))(torch.ones(1, 3))


def half_precision() -> tuple[torch.dtype, bool]:
    with dtk.init(seed=0) as rt:
        module = dtk.sync_batchnorm(nn.BatchNorm1d(3))
        x = whole_batch("1d", rt.world.rank)
        with torch.autocast("cpu", torch.bfloat16):
            output = module(x.bfloat16())
        return output.dtype, output.float().sub(dtk.sync_batchnorm(nn.BatchNorm1d(3))(x)).abs().max().item() < 0.1


def test_statistics_of_16_bit_inputs_are_kept_in_32() -> None:
    assert run_ranks(half_precision, 2) == [(torch.bfloat16, True)] * 2


def net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 9, 2))


def trained(strategy: Any, sync: bool) -> Result:
    """Three steps of 6 samples over the ranks of a run."""
    data = TensorDataset(torch.randn(18, 1, 5, 5, generator=torch.Generator().manual_seed(1)))
    with dtk.init(seed=3) as rt:
        model = (lambda: dtk.sync_batchnorm(net())) if sync else net
        engine = rt.setup(model, partial(torch.optim.SGD, lr=0.1), strategy=strategy)
        for (x,) in rt.loader(data, global_batch_size=6, shuffle=False):
            engine.backward(engine(x).square().mean())
            engine.step()
        found = {name: weight.clone() for name, weight in engine.named_weights()}
        return found | {name: buffer.clone() for name, buffer in engine.module.named_buffers()}


@pytest.mark.parametrize("strategy", ["ddp", "fsdp", dtk.DeepSpeed(stage=1), dtk.DeepSpeed(stage=3)], ids=str)
def test_every_strategy_trains_the_weights_of_one_process(strategy: Any) -> None:
    (expected,) = run_ranks(trained, 1, "single", False)
    for found in run_ranks(trained, 2, strategy, True):
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert (found[name].double() - value.double()).abs().max().item() < 1e-5, name
    local = run_ranks(trained, 2, "ddp", False)[0] if strategy == "ddp" else {}
    assert any((local[name] - expected[name]).abs().max() > 1e-3 for name in local) == bool(local), "it matters"


def test_names_parameters_and_hooks_stay() -> None:
    plain = net()
    calls: list[int] = []
    plain[1].register_forward_hook(lambda *_: calls.append(1))
    names, weight = [*plain.state_dict()], plain[1].weight
    ours = dtk.sync_batchnorm(plain)
    assert ours is plain
    assert [*ours.state_dict()] == names
    assert ours[1].weight is weight
    ours(torch.randn(2, 1, 5, 5))
    assert calls == [1]
    net().load_state_dict(ours.state_dict())


def test_what_has_no_channels_yet_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"0 is a LazyBatchNorm2d: give it its number of channels"):
        dtk.sync_batchnorm(nn.Sequential(nn.LazyBatchNorm2d()))


def test_a_tensor_that_is_not_on_a_cpu_takes_the_way_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.device] = []
    monkeypatch.setattr(nn.SyncBatchNorm, "forward", lambda self, input: seen.append(input.device) or input)
    dtk.sync_batchnorm(nn.BatchNorm1d(3))(torch.ones(2, 3, device="meta"))
    assert seen == [torch.device("meta")]
