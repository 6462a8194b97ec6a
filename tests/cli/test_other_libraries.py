"""`dtk launch --strategy X` on scripts of other libraries that do not name a strategy: is it in force?

Accelerate and Fabric have FSDP, and Fabric DeepSpeed, on GPUs only. Under FSDP Accelerate is therefore told that its
CPUs are an accelerator (on_cpus.py), and dtk that there are two GPUs, so that the ranks get what they would get there.
"""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.cli.conftest import DTK

pytestmark = pytest.mark.cli

SCRIPTS = Path(__file__).parent / "other_libraries"
GOLDEN = Path(__file__).parents[1] / "golden" / "interop.txt"
TRAINER = ("trainer.py", "--output_dir", "out", "--max_steps", "2", "--report_to", "none", "--save_strategy", "no")

no_gpu = pytest.mark.skipif(Path("/proc/driver/nvidia/gpus").is_dir(), reason="for machines without a GPU")


@pytest.fixture
def launch(tmp_path):
    """Run a script on two ranks and return what each has reported."""

    def run(*words, path="", ranks=2):
        others = ("DTK_", "PET_", "OMP_", "ACCELERATE_", "FSDP_", "LT_")
        environ = {k: v for k, v in os.environ.items() if not k.startswith(others)}
        environ["PATH"] = f"{path}:{environ['PATH']}"
        words = [str(SCRIPTS / word) if word.endswith(".py") else word for word in words]
        command = [DTK, "launch", "--nproc", str(ranks), *words]
        done = subprocess.run(
            command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=240, check=False
        )
        assert done.returncode == 0, done.stderr[-4000:]
        seen = [json.loads(line.partition("@")[2]) for line in done.stdout.splitlines() if "] @" in line]
        assert len(seen) == ranks, done.stdout
        return seen

    return run


@pytest.fixture
def two_gpus(tmp_path):
    """A folder for PATH, whose nvidia-smi lists two GPUs."""
    program = tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho GPU 0: made up\necho GPU 1: made up\n")
    program.chmod(0o755)
    return program.parent


AS_IF = ("--env", "ACCELERATE_TORCH_DEVICE=cpu", "on_cpus.py", "--split")


@no_gpu
@pytest.mark.slow
def test_trainer_under_fsdp(launch, two_gpus):
    options = ("--strategy", "fsdp", "--precision", "bf16", "--fsdp-wrap", "BertLayer")
    for seen in launch(*options, *AS_IF, *TRAINER, path=two_gpus):
        assert "FSDPModule" in seen["model"]
        assert seen["parameters"] == ["DTensor"]
        assert seen["sharded units"] >= 3  # two layers and the whole
        assert (seen["computed in"], seen["steps"], seen["ranks"]) == (["torch.bfloat16"], 2, 2)


@no_gpu
@pytest.mark.slow
@pytest.mark.parametrize("wrap", ["auto", "none", "1000"])
def test_accelerate_under_fsdp(launch, two_gpus, wrap):
    options = ("--strategy", "fsdp", "--precision", "bf16", "--fsdp-wrap", wrap)
    for seen in launch(*options, *AS_IF, "accelerate_loop.py", path=two_gpus):
        assert ("FSDPModule" in seen["model"], seen["parameters"]) == (True, ["DTensor"])
        assert (seen["computed in"], seen["steps"], seen["ranks"]) == (["torch.bfloat16"], 4, 2)


@no_gpu
@pytest.mark.slow
def test_accelerate_under_deepspeed(launch):
    options = ("--strategy", "deepspeed", "--zero-stage", "3", "--precision", "bf16")
    for seen in launch(*options, "on_cpus.py", "accelerate_loop.py", "--backend", "gloo"):
        assert seen["model"][0] == "DeepSpeedEngine"
        assert (seen["stage"], seen["computed in"]) == (3, ["torch.bfloat16"])
        assert (seen["steps"], seen["ranks"]) == (4, 2)


@no_gpu
@pytest.mark.slow
@pytest.mark.parametrize("stage", [0, 3])
def test_trainer_under_deepspeed(launch, stage):
    """In fp32: with --bf16 the Trainer wants a GPU or --use_cpu, and with --use_cpu Accelerate leaves DeepSpeed out."""
    options = ("--strategy", "deepspeed", "--zero-stage", str(stage), "--precision", "fp32")
    for seen in launch(*options, "on_cpus.py", *TRAINER, "--ddp_backend", "gloo"):
        assert (seen["model"][0], seen["stage"]) == ("DeepSpeedEngine", stage)
        assert (seen["computed in"], seen["steps"], seen["ranks"]) == (["torch.float32"], 2, 2)


@no_gpu
@pytest.mark.slow
def test_accelerate_with_a_ds_config(launch, tmp_path):
    (tmp_path / "ds.json").write_text(json.dumps({"zero_optimization": {"stage": 1}, "train_batch_size": "auto",
                                                  "train_micro_batch_size_per_gpu": "auto"}))  # fmt: skip
    options = ("--strategy", "deepspeed", "--deepspeed-config", "ds.json")
    for seen in launch(*options, "on_cpus.py", "accelerate_loop.py", "--backend", "gloo"):
        assert (seen["model"][0], seen["stage"]) == ("DeepSpeedEngine", 1)


@no_gpu
@pytest.mark.slow
@pytest.mark.parametrize("script", [TRAINER, ("accelerate_loop.py",)], ids=["trainer", "accelerate"])
def test_trainer_and_accelerate_under_ddp(launch, script):
    for seen in launch("--strategy", "ddp", "--precision", "bf16", *script):
        assert (seen["model"][0], seen["parameters"]) == ("DistributedDataParallel", ["Parameter"])
        assert (seen["computed in"], seen["ranks"]) == (["torch.bfloat16"], 2)


@no_gpu
@pytest.mark.slow
def test_fabric_under_ddp(launch):
    for seen in launch("--strategy", "ddp", "--precision", "bf16", "fabric_loop.py"):
        assert (seen["model"][0], seen["strategy"]) == ("DistributedDataParallel", "DDPStrategy")
        assert (seen["computed in"], seen["steps"], seen["ranks"]) == (["torch.bfloat16"], 4, 2)


@no_gpu
@pytest.mark.slow
def test_fsdp_on_cpus_is_refused_by_accelerate(launch):
    (said,) = launch("--strategy", "fsdp", "refusals.py", "accelerate", ranks=1)
    assert "Accelerate splits models on accelerators only" in said["refusal"]


@no_gpu
@pytest.mark.slow
def test_fsdp_on_cpus_is_refused_by_fabric_which_knows_the_names(launch):
    names = set(re.findall(r"^LT_STRATEGY=(\w+)$", GOLDEN.read_text(), re.MULTILINE))
    (said,) = launch("--strategy", "fsdp", "refusals.py", "fabric", *sorted(names), ranks=1)
    assert "FSDP is only available on GPU" in said["refusal"]
    assert said["unknown"] == ["deepspeed_stage_0"]
