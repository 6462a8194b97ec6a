"""The conformance suite on a GPU: every strategy on one rank over nccl, compared with one process on the same GPU."""

from __future__ import annotations

from functools import cache
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch

import dist_toolkit as dtk
from dist_toolkit.strategies import Strategy
from dist_toolkit.testing import run_ranks
from tests.multiproc.conformance import run_checks
from tests.multiproc.test_conformance import assert_close

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]

STRATEGIES: dict[str, Strategy] = {
    "single": dtk.Single(),
    "data_parallel": dtk.DataParallel(),
    "ddp": dtk.DDP(),
    "fsdp": dtk.FSDP(),
    "fsdp-offload": dtk.FSDP(cpu_offload=True),
    "zero1": dtk.DeepSpeed(stage=1),
    "zero2": dtk.DeepSpeed(stage=2),
    "zero3": dtk.DeepSpeed(stage=3),
}


@cache
def seen(name: str) -> dict[str, Any]:
    if name.startswith("zero"):
        pytest.importorskip("deepspeed")
    with TemporaryDirectory(prefix="dtk-conformance-") as folder:
        return run_ranks(run_checks, 1, STRATEGIES[name], folder, timeout=280, env={"DTK_DEVICE": "cuda"})[0]


@pytest.mark.parametrize("strategy", sorted(STRATEGIES.keys() - {"single"}))
@pytest.mark.parametrize("check", ["parity", "momentum", "accumulation", "clipping", "schedule", "averages", "gan"])
def test_the_same_as_one_process(strategy: str, check: str) -> None:
    assert_close(seen(strategy)[check]["saw"], seen("single")[check]["saw"], 1e-5)


@pytest.mark.parametrize("strategy", sorted(STRATEGIES))
def test_an_overflow_skips_the_step(strategy: str) -> None:
    found = seen(strategy)["skipped_step"]["saw"]
    assert "refused" in found or [row[0] for row in found["seen"]] == [True, False, True]
