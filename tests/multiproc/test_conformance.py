"""Every strategy does what one process does: the same checks for each, on its own ranks."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

import dist_toolkit as dtk
from dist_toolkit.testing import RanksFailed, run_ranks
from tests.multiproc.conformance import Case, run_checks, train_two
from tests.multiproc.together import Call, run_together

pytestmark = [pytest.mark.multiproc, pytest.mark.timeout(600)]

CASES = {
    "data_parallel": Case(dtk.DataParallel(), 1),
    "ddp": Case(dtk.DDP(), 2),
    "fsdp": Case(dtk.FSDP(), 2),
    "zero0": Case(dtk.DeepSpeed(stage=0), 2),
    "zero1": Case(dtk.DeepSpeed(stage=1), 2),
    "zero2": Case(dtk.DeepSpeed(stage=2), 2),
    "zero3": Case(dtk.DeepSpeed(stage=3), 2),
}


GROUPS = (("single", "data_parallel", "ddp", "fsdp"), ("zero0", "zero1", "zero2", "zero3"))
"""What runs at once."""


@cache
def of_group(names: tuple[str, ...]) -> dict[str, list[dict[str, Any]] | RanksFailed]:
    """What each rank saw in each check; the ranks of a strategy are started once, also if they fail."""
    cases = {"single": Case(dtk.Single(), 1)} | CASES
    with TemporaryDirectory(prefix="dtk-conformance-") as root:
        calls = {}
        for name in names:
            folder = Path(root, name)
            folder.mkdir()
            calls[name] = Call(run_checks, cases[name].ranks, (cases[name].strategy, str(folder)), cases[name].env)
        return run_together(calls, timeout=400)


def seen(name: str) -> list[dict[str, Any]] | RanksFailed:
    return of_group(next(group for group in GROUPS if name in group))[name]


def each_rank(name: str, check: str) -> list[Any]:
    ranks = seen(name)
    if isinstance(ranks, RanksFailed):
        pytest.fail(str(ranks))
    return [rank[check]["saw"] for rank in ranks]


def alone(check: str) -> Any:
    return each_rank("single", check)[0]


def assert_close(found: Any, expected: Any, tolerance: float = 1e-6) -> None:
    """Nested lists and dicts of numbers, the same within `tolerance`."""
    if isinstance(expected, dict):
        assert sorted(found) == sorted(expected)
        for key in expected:
            assert_close(found[key], expected[key], tolerance)
    elif isinstance(expected, list) and expected and isinstance(expected[0], (list, dict)):
        for mine, wanted in zip(found, expected, strict=True):
            assert_close(mine, wanted, tolerance)
    else:
        assert found == pytest.approx(expected, abs=tolerance, rel=tolerance)


@pytest.fixture(params=sorted(CASES))
def strategy(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize(
    "check",
    [
        "parity", "momentum", "accumulation", "uneven_batch", "clipping", "no_gradients", "schedule", "averages",
        "gan", "evaluation",
    ],
)  # fmt: skip
def test_the_same_as_one_process(strategy: str, check: str) -> None:
    """fp32, 1e-6: losses, gradients, norms, weights; on every rank."""
    for found in each_rank(strategy, check):
        assert_close(found, alone(check))


def test_tied_weights_stay_tied(strategy: str) -> None:
    for found in each_rank(strategy, "parity"):
        weights = found["weights"]
        assert "out.weight" not in weights or weights["out.weight"] == weights["embed.weight"]
        assert weights["embed.weight"]


def test_frozen_parameters_stay_as_they_are(strategy: str) -> None:
    for found in each_rank(strategy, "frozen_parameters"):
        assert all(name.startswith(("embed.", "blocks.0.")) for name in found["still"])
        assert len(found["still"]) == 7
        assert_close(found["weights"], alone("frozen_parameters")["weights"])


def test_what_is_trained_is_fixed_at_setup(strategy: str) -> None:
    for found in each_rank(strategy, "frozen_parameters"):
        unfrozen, frozen = found["words"]
        assert "1 parameters were unfrozen since rt.setup: embed.weight;" in unfrozen
        assert "parameters were frozen since rt.setup: blocks.1." in frozen


@pytest.mark.parametrize("names", ["ddp fsdp", "fsdp zero2", "zero3 ddp", "zero1 zero3"])
def test_two_engines_with_a_strategy_each(tmp_path: Path, names: str) -> None:
    pair = [CASES[name].strategy for name in names.split()]
    for found in run_ranks(train_two, 2, pair, str(tmp_path)):
        assert_close(found, alone("gan"))


def test_dropout_differs_between_ranks(strategy: str) -> None:
    outputs = each_rank(strategy, "dropout")
    assert outputs[0] == pytest.approx(alone("dropout"), abs=1e-6), "rank 0 draws what one process draws"
    assert len(outputs) == 1 or outputs[0] != pytest.approx(outputs[1], abs=1e-3)


def test_an_overflow_on_one_rank_skips_the_step_on_all(strategy: str) -> None:
    expected = [
        [True, True, 0.05, 65536.0, True],
        [False, False, 0.05, 32768.0, False],
        [True, True, 0.025, 32768.0, True],
    ]
    for found in each_rank(strategy, "skipped_step"):
        if "refused" in found:
            assert strategy.startswith("zero")
            assert "fp16" in found["refused"]
            continue
        assert found["seen"] == expected
        assert_close(found["weights"], alone("skipped_step")["weights"])


def test_gradients_that_were_thrown_away_leave_no_scale_behind(strategy: str) -> None:
    """fp16: the norms are alike but for rounding, and nowhere as many times too large as the loss is scaled."""
    for found in each_rank(strategy, "dropped_step"):
        assert found == pytest.approx(alone("dropped_step"), rel=0.05)
        assert max(found) < 3 * min(found)


def test_a_resume_is_exact(strategy: str) -> None:
    """The check itself compares bits; the weights are those of one process that did the same, and the keys too."""
    for found in each_rank(strategy, "resume"):
        assert_close(found["weights"], alone("resume")["weights"])
        assert found["keys"] == alone("resume")["keys"]


def test_unused_parameters_are_named_at_the_first_step(strategy: str) -> None:
    said = each_rank(strategy, "unused")[0]
    assert "idle.weight, idle.bias" in said
    assert "used.weight" not in said.replace("idle.weight", "")


def test_bf16_computes_in_bf16_and_keeps_fp32(strategy: str) -> None:
    for found in each_rank(strategy, "bf16"):
        assert found["seen"] == ["torch.bfloat16"]
        assert found["weights"] == ["torch.float32"]
        assert found["ratio"] < 0.5


def test_memory(strategy: str) -> None:
    """Weights, gradients and two moments: in units of the weights, 4 where they are whole, on each of two ranks."""
    assert alone("memory") == pytest.approx(4.0, abs=0.1)
    # ZeRO 1 and 2 hold all weights, half of the moments, and half of the weights again, as the optimizer's
    expected = {"fsdp": 2.0, "zero3": 2.0, "zero2": 3.0, "zero1": 3.5}
    for found in each_rank(strategy, "memory"):
        assert found == pytest.approx(expected.get(strategy, 4.0), abs=0.3)
