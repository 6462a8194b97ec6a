"""World and settings from an environment."""

from __future__ import annotations

import pytest
import torch

from dist_toolkit.devices import choose_backend, choose_device
from dist_toolkit.errors import ConfigError
from dist_toolkit.world import LaunchSettings, World

TORCHRUN = {
    "RANK": "5", "LOCAL_RANK": "1", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4",
    "GROUP_RANK": "1", "GROUP_WORLD_SIZE": "2", "TORCHELASTIC_RESTART_COUNT": "3",
}  # fmt: skip


def test_torchruns_variables() -> None:
    assert World.from_env(TORCHRUN) == World(5, 1, 8, 4, 1, 2, 3, True)


def test_no_launcher_is_a_world_of_one() -> None:
    world = World.from_env({"PATH": "/bin"})
    assert (world.rank, world.world_size, world.launched, world.is_main) == (0, 1, False, True)


def test_plain_rank_and_world_size_are_one_node() -> None:
    assert World.from_env({"RANK": "1", "WORLD_SIZE": "2"}) == World(1, 1, 2, 2, 0, 1, 0, True)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"RANK": "8"}, "RANK=8 is not in 0 to 7"),
        ({"RANK": "x"}, "RANK='x' is not a number"),
        ({"LOCAL_RANK": "4"}, "LOCAL_RANK=4"),
        ({"GROUP_RANK": "2"}, "GROUP_RANK=2"),
        ({"LOCAL_WORLD_SIZE": "9"}, "LOCAL_WORLD_SIZE=9 is more than WORLD_SIZE=8"),
        ({"WORLD_SIZE": "0"}, "RANK=5 is not in"),
    ],
)
def test_contradictions_are_named(changes: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        World.from_env({**TORCHRUN, **changes})


def test_half_an_environment_is_an_error() -> None:
    with pytest.raises(ConfigError, match="WORLD_SIZE is not"):
        World.from_env({"RANK": "0"})


def test_settings() -> None:
    env = {"DTK_RUN_DIR": "/r", "DTK_RUN_NAME": "n", "DTK_STRATEGY": "ddp", "DTK_DEVICE": "cpu", "DTK_LIVE": "1"}
    assert LaunchSettings.from_env(env) == LaunchSettings("/r", "n", "ddp", "cpu", True)
    assert LaunchSettings.from_env({"DTK_RUN_DIR": ""}) == LaunchSettings()
    with pytest.raises(ConfigError, match="known: auto, cpu, cuda"):
        LaunchSettings.from_env({"DTK_DEVICE": "gpu"})


@pytest.mark.parametrize(
    ("gpus", "local_rank", "wanted", "device"),
    [
        (0, 1, "auto", "cpu"),
        (4, 2, "auto", "cuda:2"),
        (4, 2, "cpu", "cpu"),
        (1, 3, "auto", "cuda:0"),  # the scheduler has bound one GPU to this process
    ],
)
def test_device_by_local_rank(
    monkeypatch: pytest.MonkeyPatch, gpus: int, local_rank: int, wanted: str, device: str
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    assert choose_device(World(local_rank, local_rank, 4, 4, launched=True), wanted) == torch.device(device)


def test_devices_that_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ConfigError, match="local rank 3 has no GPU: 4 ranks on this node, 2 GPUs"):
        choose_device(World(3, 3, 4, 4, launched=True))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(ConfigError, match="torch sees no GPU"):
        choose_device(World(), "cuda")
    with pytest.raises(ConfigError, match="known: auto, cpu, cuda"):
        choose_device(World(), "tpu")


def test_backend_by_device() -> None:
    assert choose_backend(torch.device("cpu")) == "gloo"
    assert choose_backend(torch.device("cuda", 0)) == "cpu:gloo,cuda:nccl"
    assert choose_backend(torch.device("cuda", 0), "nccl") == "nccl"
    with pytest.raises(ConfigError, match="needs a GPU but the device is cpu"):
        choose_backend(torch.device("cpu"), "nccl")
    with pytest.raises(ConfigError, match="backend='mpi' is not known"):
        choose_backend(torch.device("cpu"), "mpi")
