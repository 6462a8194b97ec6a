"""What only DDP and DataParallel do: communication hooks, Join, unused parameters, buckets; and what they refuse."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.utils.data import TensorDataset

import dist_toolkit as dtk
from dist_toolkit.errors import ConfigError
from dist_toolkit.testing import RanksFailed, run_ranks
from tests.multiproc.training import digest

pytestmark = pytest.mark.multiproc

SGD = partial(torch.optim.SGD, lr=0.1)


def line() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 4))


class Partly(nn.Module):
    """Its layer `sometimes` takes part only where it is asked to."""

    def __init__(self) -> None:
        super().__init__()
        self.always, self.sometimes = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: torch.Tensor, both: bool) -> torch.Tensor:
        return self.sometimes(self.always(x)) if both else self.always(x)


def step(engine: dtk.Engine, x: torch.Tensor, *args: Any) -> dict[str, torch.Tensor]:
    """One backward pass; the gradients, copied; then the update."""
    engine.backward(engine(x, *args).square().mean())
    found = {name: gradient.clone() for name, gradient in engine.named_gradients()}
    engine.step()
    return found


def options() -> dict[str, Any]:
    """Gradients under each option, relative to the plain ones."""
    found: dict[str, Any] = {}
    with dtk.init(seed=3) as rt:
        x = torch.randn(4, 8, generator=torch.Generator().manual_seed(rt.world.rank))

        def gradients(strategy: dtk.DDP, steps: int = 1) -> dict[str, torch.Tensor]:
            rt._engines = 0
            engine = rt.setup(line, SGD, strategy=strategy)
            return [step(engine, x) for _ in range(steps)][-1]

        plain = gradients(dtk.DDP(), 3)
        for name, strategy in {
            "bucket": dtk.DDP(bucket_cap_mb=0.0001),
            "static": dtk.DDP(static_graph=True),
            "no view": dtk.DDP(gradient_as_bucket_view=False),
            "bf16": dtk.DDP(comm_hook="bf16"),
            "fp16": dtk.DDP(comm_hook="fp16"),
            "powersgd": dtk.DDP(comm_hook="powersgd", powersgd_rank=1, powersgd_start=2),
        }.items():
            other = gradients(strategy, 3)
            distance = max(((other[key] - plain[key]).norm() / plain[key].norm()).item() for key in plain)
            found[name] = distance
        found["buckets"] = buckets(rt)
        found["compiled"] = max(
            (a - b).abs().max().item()
            for a, b in zip(compiled(rt, x).values(), gradients(dtk.DDP()).values(), strict=True)
        )
    return found


def buckets(rt: dtk.Runtime) -> list[int]:
    """Reductions of one backward pass, with large and with tiny buckets."""
    counts = []
    for strategy in (dtk.DDP(), dtk.DDP(bucket_cap_mb=0.0001)):
        engine = rt.setup(line, SGD, strategy=strategy)
        step(engine, torch.ones(2, 8))  # the first step learns the order of the buckets
        calls: list[int] = []
        engine._ddp.register_comm_hook(calls, _counted)
        step(engine, torch.ones(2, 8))
        counts.append(len(calls))
    return counts


def _counted(calls: list[int], bucket: Any) -> Any:
    calls.append(1)
    from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

    return allreduce_hook(dist.group.WORLD, bucket)


# DDP compares the annotations themselves, and in this file they are strings
_counted.__annotations__ = {"bucket": dist.GradBucket, "return": torch.futures.Future[torch.Tensor]}


def compiled(rt: dtk.Runtime, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """A compiled model keeps the names of the plain one."""
    rt._engines = 0
    engine = rt.setup(lambda: torch.compile(line(), backend="eager"), SGD, strategy=dtk.DDP())
    found = step(engine, x)
    assert list(found) == [name for name, _ in line().named_parameters()]
    assert {key for key in engine.state_dict() if key.startswith("model.")} >= {f"model.{name}" for name in found}
    return found


def test_options_change_how_gradients_travel_not_what_they_are() -> None:
    for found in run_ranks(options, 2):
        assert found["bucket"] < 1e-6
        assert found["static"] < 1e-6
        assert found["no view"] < 1e-6
        assert 0 < found["bf16"] < 0.02, "rounded to 8 bits of mantissa"
        assert 0 < found["fp16"] < 0.002, "rounded to 11 bits"
        assert 0.01 < found["powersgd"] < 1.0, "rank 1 of 8: lossy"
        assert found["buckets"][0] == 1
        assert found["buckets"][1] > 1
        assert found["compiled"] < 1e-6


def unused(find: bool) -> list[str]:
    said: list[str] = []
    with dtk.init(seed=3) as rt:
        handler = logging.Handler()
        handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
        logging.getLogger("dist_toolkit").addHandler(handler)
        engine = rt.setup(Partly, SGD, strategy=dtk.DDP(find_unused_parameters=find))
        try:
            for both in (False, False, True):
                step(engine, torch.ones(2, 4), both)
        except ConfigError as error:
            said.append(str(error))
    return said


def test_unused_parameters_are_an_error_at_step_1_and_allowed_if_asked_for() -> None:
    for said in run_ranks(unused, 2, False):
        assert len(said) == 1
        assert "2 parameters got no gradient at the first step" in said[0]
        assert "sometimes.weight, sometimes.bias" in said[0]
        assert "find_unused_parameters=True" in said[0]
    main, other = run_ranks(unused, 2, True)
    assert len(main) == 1
    assert "are not trained: sometimes.weight, sometimes.bias" in main[0]
    assert other == [], "rank 0 speaks for all"


def joined(strategy: str) -> list[float]:
    with dtk.init(seed=3) as rt:
        engine = rt.setup(lambda: nn.Linear(1, 1, bias=False), partial(torch.optim.SGD, lr=1.0), strategy=strategy)
        gradients = []
        with engine.join():
            for number in range(1 + 2 * rt.world.rank):  # 1 batch on rank 0, 3 on rank 1
                engine.backward(engine(torch.full((1, 1), 1.0 + rt.world.rank)).sum())
                gradients.append(engine.module.weight.grad.item())
                engine.step()
                assert number < 3
        rt.group.barrier()
        return gradients


def test_join_lets_a_rank_run_out_of_batches() -> None:
    """The mean of both ranks' inputs while both have batches, then that of the one that goes on."""
    assert run_ranks(joined, 2, "ddp") == [[1.5], [1.5, 2.0, 2.0]]


def test_join_is_refused_by_name_where_it_cannot_be() -> None:
    with pytest.raises(RanksFailed, match="strategy 'fsdp' cannot join"):
        run_ranks(joined, 2, "fsdp")
    assert run_ranks(joined, 1, "single") == [[1.0]]


def leveled() -> list[list[Any]]:
    """Everything that ranks hold after a join in which rank 1 made more steps, and after another step."""
    schedule = partial(torch.optim.lr_scheduler.StepLR, step_size=1, gamma=0.5)
    seen = []
    with dtk.init(seed=3) as rt:
        engine = rt.setup(
            line, partial(torch.optim.AdamW, lr=0.1), scheduler=schedule, ema=dtk.EMA(0.5), strategy="ddp"
        )
        with engine.join():
            for number in range(2 + rt.world.rank):
                step(engine, torch.full((2, 8), float(number + rt.world.rank)))
        for _ in range(2):
            state = {k: v for k, v in engine.state_dict().items() if isinstance(v, torch.Tensor)}
            ema = {k: v for k, v in engine.extra_parts()["ema"].state_dict().items() if isinstance(v, torch.Tensor)}
            seen.append([digest(state), digest(ema), engine.scheduler.state_dict()["last_epoch"]])
            step(engine, torch.ones(2, 8))
    return seen


def test_after_a_join_all_ranks_hold_the_same() -> None:
    one, other = run_ranks(leveled, 2)
    assert one == other
    assert [row[2] for row in one] == [3, 4]


def micro_batches_apart(strategy: dtk.DDP) -> str:
    """A layer that takes part in the first micro-batch only."""
    with dtk.init(seed=3) as rt:
        engine = rt.setup(Partly, SGD, strategy=strategy)
        try:
            for number, x in enumerate(engine.accumulate(torch.ones(4, 4), 2)):
                engine.backward(engine(x, number == 0).sum())
            engine.step()
        except ConfigError as error:
            return str(error)
    return ""


def test_what_accumulation_cannot_do_is_named() -> None:
    for words in run_ranks(micro_batches_apart, 2, dtk.DDP()):
        assert "2 parameters got no gradient at the first step" in words
        assert "sometimes.weight" in words
    for words in run_ranks(micro_batches_apart, 2, dtk.DDP(static_graph=True)):
        assert "static_graph=True) cannot accumulate" in words


def short_tail(root: str, until: int) -> dict[str, list[float]]:
    """11 samples in batches of 8, in 2 micro-batches a rank; the last batch of the epoch is 3 samples."""
    data = TensorDataset(torch.randn(11, 8, generator=torch.Generator().manual_seed(1)))
    with dtk.init(seed=3) as rt:
        engine = rt.setup(line, SGD)
        loader = rt.loader(data, global_batch_size=8, drop_last=False, micro_batches=2)
        ckpt = rt.checkpointer(root, engine=engine, loader=loader)
        for _, batch in ckpt.steps(loader, until=until):
            for (x,) in engine.accumulate(batch, 2):
                engine.backward(engine(x).square().mean())
            engine.step()
        return {name: tensor.flatten().tolist() for name, tensor in engine.named_weights()}


def test_a_resume_just_before_the_short_last_batch(tmp_path: Path) -> None:
    whole = run_ranks(short_tail, 2, str(tmp_path / "whole"), 3)
    run_ranks(short_tail, 2, str(tmp_path / "parts"), 1)
    assert run_ranks(short_tail, 2, str(tmp_path / "parts"), 3) == whole


def data_parallel() -> tuple[list[str], str]:
    said: list[str] = []
    with dtk.init(seed=3) as rt:
        handler = logging.Handler()
        handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
        logging.getLogger("dist_toolkit").addHandler(handler)
        engine = rt.setup(line, SGD, strategy="data_parallel")
        step(engine, torch.ones(2, 8))
        with pytest.raises(ConfigError, match="the device is the CPU"):
            rt.setup(line, SGD, strategy=dtk.DataParallel(device_ids=(0, 1)))
        return said, engine.strategy


def test_data_parallel_without_gpus_says_what_it_is() -> None:
    said, name = run_ranks(data_parallel, 1)[0]
    assert name == "data_parallel"
    assert "no GPU here: it is one process on one device" in said[0]
    assert "dtk bench throughput" in said[0]
    with pytest.raises(RanksFailed, match="one process with many GPUs, but there are 2 ranks"):
        run_ranks(data_parallel, 2)


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ({"bucket_cap_mb": 0}, "bucket_cap_mb=0"),
        ({"comm_hook": "int8"}, "known: bf16, fp16, powersgd"),
        ({"powersgd_rank": 0}, "the rank is at least 1"),
        ({"powersgd_start": 1}, "the start at least 2"),
    ],
)
def test_options_out_of_range_are_refused(wanted: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        dtk.DDP(**wanted)
