"""The options of training that examples share: schedules, rates, parameter groups, bad input, early stopping."""

from __future__ import annotations

import argparse
import math
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from shared import practice
from torch import nn
from torch.utils.data import TensorDataset

import dist_toolkit as dtk

SCHEDULES = ["constant", "linear", "cosine"]


def options(*words: str, **defaults: Any) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    practice.add_options(parser, **defaults)
    return parser.parse_args(words)


def rates(steps: int, warmup: int, schedule: str) -> list[float]:
    return [practice.share_of_rate(step, steps=steps, warmup=warmup, schedule=schedule) for step in range(steps + 1)]


@given(st.integers(1, 300), st.floats(0, 1), st.sampled_from(SCHEDULES))
def test_a_schedule_goes_up_to_the_peak_then_never_up_again(steps: int, share: float, schedule: str) -> None:
    warmup = round(share * steps)
    found = rates(steps, warmup, schedule)
    assert all(0 < rate <= 1 for rate in found[:-1]), "no step is done without learning"
    assert all(before < after for before, after in pairwise(found[: warmup + 1]))
    assert all(before >= after for before, after in pairwise(found[warmup:]))
    if warmup < steps:
        assert found[warmup] == 1.0
        assert found[steps] == pytest.approx(1.0 if schedule == "constant" else 0.0, abs=1e-12)


@given(st.integers(1, 300), st.integers(0, 300), st.sampled_from(SCHEDULES), st.integers(0, 1000))
def test_past_the_last_step_the_rate_stays(steps: int, warmup: int, schedule: str, further: int) -> None:
    last = practice.share_of_rate(steps + warmup, steps=steps, warmup=warmup, schedule=schedule)
    later = practice.share_of_rate(steps + warmup + further, steps=steps, warmup=warmup, schedule=schedule)
    assert later == last


@given(st.integers(4, 300), st.integers(0, 3))
def test_halfway_the_rate_is_half(steps: int, warmup: int) -> None:
    for schedule in ("linear", "cosine"):
        middle = practice.share_of_rate(warmup + steps, steps=warmup + 2 * steps, warmup=warmup, schedule=schedule)
        assert middle == pytest.approx(0.5)


@given(st.floats(1e-6, 10), st.integers(1, 4096), st.integers(1, 4096))
def test_the_learning_rate_grows_with_the_global_batch(rate: float, batch: int, base: int) -> None:
    args = options(lr=rate, global_batch_size=batch, base_batch_size=base)
    args.scale_lr = "linear"
    linear = practice.learning_rate(args)
    assert linear / batch == pytest.approx(rate / base)
    args.scale_lr = "sqrt"
    assert practice.learning_rate(args) == pytest.approx(math.sqrt(linear * rate))
    args.scale_lr = "no"
    assert practice.learning_rate(args) == rate


@pytest.mark.parametrize("how", ["no", "linear", "sqrt"])
def test_without_a_base_the_rate_is_for_the_global_batch(how: str) -> None:
    assert practice.learning_rate(options("--lr", "0.3", "--scale-lr", how)) == 0.3


def net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 3), nn.LayerNorm(3))


@pytest.mark.parametrize("name", sorted(practice.OPTIMIZERS))
def test_weights_decay_and_biases_and_norms_do_not(name: str) -> None:
    model = net()
    made = practice.optimizer(options("--optimizer", name, "--weight-decay", "0.1", "--lr", "0.5"))(model.parameters())
    decays = {id(p): group["weight_decay"] for group in made.param_groups for p in group["params"]}
    found = {name: decays[id(p)] for name, p in model.named_parameters()}
    assert found == {
        "0.weight": 0.1, "0.bias": 0.0, "1.weight": 0.0, "1.bias": 0.0, "3.weight": 0.1, "3.bias": 0.0,
        "4.weight": 0.0, "4.bias": 0.0,
    }  # fmt: skip
    assert all(group["lr"] == 0.5 for group in made.param_groups)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=12))
def test_groups_hold_each_parameter_once_and_none_is_empty(dimensions: list[int]) -> None:
    parameters = [nn.Parameter(torch.zeros([1] * number)) for number in dimensions]
    groups = practice.parameter_groups(iter(parameters), 0.1)
    held = [id(p) for group in groups for p in group["params"]]
    assert sorted(held) == sorted(map(id, parameters))
    assert all(group["params"] for group in groups)


def test_a_schedule_moves_the_rate_of_every_group() -> None:
    args = options("--lr", "1", "--warmup", "0.2", "--schedule", "linear")
    made = practice.optimizer(args)(net().parameters())
    schedule = practice.scheduler(args, 10)(made)
    seen = []
    for _ in range(10):
        seen.append({group["lr"] for group in made.param_groups})
        made.step()
        schedule.step()
    assert [round(rate, 4) for (rate,) in seen] == [0.3333, 0.6667, 1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--warmup", "1.5"), "1.5 is not in 0..1"),
        (("--warmup", "nan"), "nan is not in 0..1"),
        (("--epochs", "0"), "0 is not in 1..inf"),
        (("--accumulate", "two"), "invalid int value: 'two'"),
        (("--lr", "-1"), "-1 is not in 0..inf"),
        (("--optimizer", "lion"), "invalid choice: 'lion'"),
    ],
)
def test_bad_values_are_refused(words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        options(*words)
    assert refused.value.code == 2
    assert said in capsys.readouterr().err


def run(root: Path, patience: int, fail_at: int | None = None) -> tuple[list[int], list[float]]:
    """Up to 6 epochs of 2 steps, with a metric that is best in the second; the steps done, and the weights."""
    args = options("--epochs", "6", "--global-batch-size", "4", "--patience", str(patience))
    data = TensorDataset(torch.randn(8, 3, generator=torch.Generator().manual_seed(0)))
    metrics, done = [0.5, 0.7, 0.6, 0.6, 0.6, 0.6], []
    with dtk.init(seed=0) as rt:
        loader = practice.train_loader(rt, args, data)
        engine = practice.setup(rt, args, partial(nn.Linear, 3, 1), 12)
        stop = practice.early_stopping(rt, args)
        ckpt = rt.checkpointer(root, engine=engine, loader=loader, state={"stop": stop}, every=1, background=False)
        for step, (x,) in practice.steps(ckpt, loader, args, stop):
            if step == fail_at:
                raise KeyboardInterrupt
            engine.backward(engine(x).square().mean())
            practice.update(engine, args)
            done.append(step)
            if step % 2 == 0 and stop.update(metrics[step // 2 - 1]):
                ckpt.save()
                break
        return done, engine.module.weight.flatten().tolist()


def test_a_run_that_had_stopped_early_does_not_go_on(tmp_path: Path) -> None:
    done, weights = run(tmp_path / "whole", 2)
    assert done == [*range(1, 9)], "two evaluations, at steps 6 and 8, brought no progress"
    assert run(tmp_path / "whole", 2) == ([], weights), "started again, there is nothing left to do"
    assert run(tmp_path / "whole", 3)[0] == [9, 10], "unless it is told to be more patient"
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts", 2, fail_at=7)
    assert run(tmp_path / "parts", 2) == ([7, 8], weights), "what was waited for before the end is not forgotten"
