"""Scripts of the Trainer and of Accelerate that import nothing of this package, under each strategy."""

import difflib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DTK = str(Path(sys.executable).parent / "dtk")
ON_CPUS = ROOT / "tests" / "cli" / "other_libraries" / "on_cpus.py"
SCRIPTS = ("hf_trainer.py", "hf_accelerate.py")
SMALL = (
    "--steps",
    "20",
    "--save-every",
    "10",
    "--files",
    "4",
    "--batch-size",
    "4",
    "--width",
    "32",
)
STRATEGIES = {
    "fsdp": (
        "--strategy", "fsdp", "--fsdp-wrap", "GPT2Block", "--env", "ACCELERATE_TORCH_DEVICE=cpu", ON_CPUS, "--split",
    ),
    "zero1": ("--strategy", "deepspeed", "--zero-stage", "1", "--precision", "fp32", "--device", "cpu", ON_CPUS),
    "zero3": ("--strategy", "deepspeed", "--zero-stage", "3", "--precision", "fp32", "--device", "cpu", ON_CPUS),
}  # fmt: skip

no_gpu = pytest.mark.skipif(Path("/proc/driver/nvidia/gpus").is_dir(), reason="for machines without a GPU")


@pytest.fixture
def two_gpus(tmp_path):
    """A folder for PATH, whose nvidia-smi lists two GPUs."""
    program = tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho GPU 0: made up\necho GPU 1: made up\n")
    program.chmod(0o755)
    return program.parent


def run(folder, script, *options, steps=20, path="", rate="1e-2"):
    """Run a script on two ranks; the loss that it ends with."""
    others = ("DTK_", "PET_", "ACCELERATE_", "FSDP_", "LT_")
    env = {key: value for key, value in os.environ.items() if not key.startswith(others)}
    env |= {"OMP_NUM_THREADS": "1", "PATH": f"{path}:{env['PATH']}"}
    words = [DTK, "launch", "--nproc", 2, *options, ROOT / "examples" / script, "--output-dir", "out", *SMALL]
    done = subprocess.run(
        [*map(str, words), "--steps", str(steps), "--lr", rate],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    (loss,) = re.findall(rf"loss (\d\.\d+) a byte after {steps} steps", done.stdout)
    return float(loss)


def test_they_import_nothing_of_this_package():
    for script in SCRIPTS:
        assert "import dist_toolkit" not in (text := (ROOT / "examples" / script).read_text())
        assert "from dist_toolkit" not in text


def test_the_exact_one_has_two_lines_more():
    plain, exact = (
        (ROOT / "examples" / name).read_text().split('"""', 2)[2].splitlines()
        for name in ("hf_trainer.py", "hf_trainer_exact.py")
    )
    changed = [line for line in difflib.ndiff(plain, exact) if line[0] in "+-" and line[1:].strip()]
    assert changed == ["+ from dist_toolkit.integrations.transformers import attach", "+     attach(trainer)"]


@pytest.mark.cli
@pytest.mark.parametrize("script", SCRIPTS)
def test_under_ddp_it_learns(tmp_path, script):
    assert run(tmp_path, script, "--strategy", "ddp", "--device", "cpu") < 4.6  # ln 256 is 5.5


@pytest.mark.cli
@pytest.mark.slow
def test_the_exact_one_goes_on_as_if_it_had_not_stopped(tmp_path):
    """Its newest checkpoint is taken away, as if it had been killed before that save."""
    options = ("--strategy", "ddp", "--device", "cpu", "--run-dir", "run")
    whole = run(tmp_path, "hf_trainer_exact.py", *options)
    assert whole < 4.6
    newest = tmp_path / "run" / "checkpoints" / "step-00000020"
    before = tensors(newest)
    shutil.rmtree(newest)
    assert run(tmp_path, "hf_trainer_exact.py", *options) == whole
    assert tensors(newest) == before


def tensors(folder):
    """Digests of all that a checkpoint holds of weights, optimizer and generators."""
    body = json.loads((folder / "manifest.json").read_text())["body"]
    return {name: [chunk[5] for chunk in entry["chunks"]] for name, entry in body["tensors"].items()}


@pytest.mark.cli
@pytest.mark.slow
@no_gpu
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("script", SCRIPTS)
def test_under_other_strategies_it_learns_and_goes_on(tmp_path, two_gpus, script, strategy):
    path = two_gpus if strategy == "fsdp" else ""
    first = run(tmp_path, script, *STRATEGIES[strategy], path=path)
    assert first < 4.8
    again = run(tmp_path, script, *STRATEGIES[strategy], steps=30, path=path, rate="0")
    assert again < first + 0.3, "from new weights, at a rate of 0, it would stay at 5.5"


@pytest.mark.cli
@pytest.mark.slow
@no_gpu
def test_the_exact_one_under_fsdp(tmp_path, two_gpus):
    options = ("--run-dir", "run", *STRATEGIES["fsdp"])
    whole = run(tmp_path, "hf_trainer_exact.py", *options, path=two_gpus)
    newest = tmp_path / "run" / "checkpoints" / "step-00000020"
    before = tensors(newest)
    shutil.rmtree(newest)
    assert run(tmp_path, "hf_trainer_exact.py", *options, path=two_gpus) == whole
    assert tensors(newest) == before
