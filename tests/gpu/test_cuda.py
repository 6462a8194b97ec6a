"""On a GPU: the same program, its checkpoints, and nccl. Skipped without one."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F

import dist_toolkit as dtk
from dist_toolkit.errors import ConfigError
from dist_toolkit.testing import RanksFailed, run_ranks
from tests.multiproc.training import Noisy, Program, digest, net, train

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]

CUDA = {"DTK_DEVICE": "cuda"}


def stop_and_go_on(root: str, steps: int) -> dict[str, Any]:
    with dtk.init(seed=5) as rt:
        assert rt.device == torch.device("cuda", 0)
        engine = rt.setup(net, partial(torch.optim.AdamW, lr=0.01))
        loader = rt.loader(Noisy(48), global_batch_size=8, num_workers=1)
        ckpt = rt.checkpointer(root, engine=engine, loader=loader)
        for _, (_, x, y) in ckpt.steps(loader, until=steps):
            assert x.device == y.device == rt.device
            engine.backward(F.cross_entropy(engine(x), y))
            engine.step()
        state = engine.state_dict()
        noise = torch.rand(4, device=rt.device).tolist()
        return {"digest": digest({k: v for k, v in state.items() if isinstance(v, torch.Tensor)}), "noise": noise}


@pytest.mark.parametrize("strategy", ["single", "ddp"])
def test_resume_is_bit_identical_and_restores_the_gpus_generator(tmp_path: Path, strategy: str) -> None:
    env = {**CUDA, "DTK_STRATEGY": strategy, "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
    whole = run_ranks(stop_and_go_on, 1, str(tmp_path / "whole"), 12, env=env)
    run_ranks(stop_and_go_on, 1, str(tmp_path / "parts"), 5, env=env)
    assert run_ranks(stop_and_go_on, 1, str(tmp_path / "parts"), 12, env=env) == whole


def backends() -> tuple[str, float, int]:
    with dtk.init() as rt:
        on_gpu = rt.group.all_reduce(torch.ones(1, device=rt.device)).item()
        on_cpu = rt.group.all_reduce(torch.ones(1, dtype=torch.int64)).item()
        return dist.get_backend_config(), on_gpu, int(on_cpu)


def test_gpu_tensors_go_over_nccl_and_messages_over_gloo() -> None:
    config, on_gpu, on_cpu = run_ranks(backends, 1, env=CUDA)[0]
    assert "nccl" in config
    assert (on_gpu, on_cpu) == (1.0, 1)


@pytest.mark.skipif(torch.cuda.device_count() != 1, reason="needs exactly one GPU")
def test_two_ranks_on_one_gpu_are_refused() -> None:
    with pytest.raises(RanksFailed, match=ConfigError.__name__):
        run_ranks(backends, 2, env=CUDA)


def test_saved_on_a_gpu_read_on_a_cpu(tmp_path: Path) -> None:
    """The GPU's generator is state that a CPU has no use for; the rest is the same bytes."""
    run_ranks(stop_and_go_on, 1, str(tmp_path), 6, env=CUDA)
    assert run_ranks(weights, 1, str(tmp_path)) == run_ranks(weights, 1, str(tmp_path), env=CUDA)


def weights(root: str) -> str:
    with dtk.init(seed=5) as rt:
        engine = rt.setup(net, partial(torch.optim.AdamW, lr=0.01))
        rt.checkpointer(root, engine=engine).restore()
        return digest({k: v for k, v in engine.state_dict().items() if k.startswith("model.")})


def test_a_killed_cpu_run_on_a_machine_with_a_gpu(tmp_path: Path) -> None:
    """The ranks of run_ranks stay on the CPU unless they are asked to leave it."""
    assert "DTK_DEVICE" not in os.environ
    assert run_ranks(train, 2, Program(str(tmp_path), epochs=1))[0]["step"] == 3
