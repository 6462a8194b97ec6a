"""attach(trainer): the Trainer's run, in real ranks, is the same whether it was broken off or not."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = [pytest.mark.cli, pytest.mark.timeout(600)]

DTK = str(Path(sys.executable).parent / "dtk")
SCRIPTS = Path(__file__).parent / "scripts"
USUAL = (
    "--output_dir", "out", "--use_cpu", "--max_steps", "12", "--per_device_train_batch_size", "2",
    "--gradient_accumulation_steps", "2", "--save_steps", "3", "--logging_steps", "2", "--eval_strategy", "steps",
    "--eval_steps", "5", "--report_to", "none", "--disable_tqdm", "true", "--draws",
)  # fmt: skip
FAST = ("accumulation", "by length", "steps and epochs", "early stopping")


class Run:
    """One start of a script in a folder, on two ranks or alone."""

    def __init__(self, folder, script, *words, ranks=2, options=()):
        folder.mkdir(exist_ok=True)
        others = ("DTK_", "PET_", "ACCELERATE_", "FSDP_", "LT_")
        env = {key: value for key, value in os.environ.items() if not key.startswith(others)}
        env |= {"OMP_NUM_THREADS": "1", "STEP_DIR": str(folder)}
        launch = [DTK, "launch", "--nproc", str(ranks), "--device", "cpu", "--run-dir", "run", *options]
        self.folder = folder
        self.process = subprocess.Popen(
            [*launch, str(SCRIPTS / script), *words], cwd=folder, env=env, text=True, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )  # fmt: skip

    def wait_for_step(self, step):
        deadline = time.monotonic() + 300
        while not (text := self.read("step")) or int(text) < step:
            assert self.process.poll() is None, self.end()
            assert time.monotonic() < deadline, "it does not train"
            time.sleep(0.01)

    def read(self, name):
        path = self.folder / name
        return path.read_text() if path.exists() else ""

    def end(self):
        """(exit code, stderr, what the script has reported)"""
        out, err = self.process.communicate(timeout=500)
        found = [json.loads(line.partition("@")[2]) for line in out.splitlines() if "@{" in line]
        return self.process.returncode, err, found

    def result(self):
        code, err, found = self.end()
        assert code == 0, err[-4000:]
        return found

    def saved(self):
        return sorted(path for path in (self.folder / "run/checkpoints").glob("step-????????"))


def damage(folder):
    """Flip a bit in the middle of the largest file of a checkpoint."""
    path = max((p for p in folder.iterdir() if p.suffix != ".json"), key=lambda p: p.stat().st_size)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


@pytest.mark.slow
def test_broken_off_and_resumed_it_is_the_same_run(tmp_path):
    found = Run(tmp_path / "x", "scenarios.py", str(tmp_path / "runs"), *FAST).result()
    assert [one["name"] for one in found] == [*FAST]
    for one in found:
        assert one["parts"] == one["whole"], one["name"]


def test_what_cannot_be_kept_is_refused(tmp_path):
    (said,) = Run(tmp_path / "x", "refused.py", ranks=1).result()
    for name, words in said.items():
        assert words is not None, name
        assert name in words
    assert "install transformers 5.3 or later" in said["_run_epoch"]


@pytest.mark.slow
def test_every_scenario(tmp_path):
    found = Run(tmp_path / "x", "scenarios.py", str(tmp_path / "runs"), ranks=1).result()
    assert len(found) == 10
    (stopped,) = [one for one in found if one["name"] == "early stopping"]
    assert stopped["parts"]["step"] == 8  # of 20
    for one in found:
        assert one["parts"] == one["whole"], one["name"]


@pytest.mark.slow
def test_preempted_and_damaged_it_is_the_same_run(tmp_path):
    """One run that a signal stops (75), whose newest checkpoint is then damaged, against one that nothing disturbs."""
    run = Run(tmp_path / "parts", "pretrain.py", *USUAL, "--slow", "0.1")
    run.wait_for_step(random.choice([4, 5, 6]))
    run.process.send_signal(signal.SIGUSR1)
    code, err, found = run.end()
    assert (code, found, "preempted and saved" in err) == (75, [], True), err[-3000:]
    newest = run.saved()[-1]
    assert int(newest.name[5:]) >= 5
    damage(newest)

    run = Run(tmp_path / "parts", "pretrain.py", *USUAL)
    code, err, parts = run.end()
    assert code == 0, err[-3000:]
    assert f"checkpoint {newest.name} is damaged and is passed over" in err
    assert re.search(r"restored step (\d+) from", err)
    whole = Run(tmp_path / "whole", "pretrain.py", *USUAL)
    assert parts == whole.result()
    steps = {path.name for path in run.saved()}
    assert steps - {newest.name} == {path.name for path in whole.saved()} - {newest.name}


@pytest.mark.slow
def test_killed_anywhere_it_is_the_same_run(tmp_path):
    whole = Run(tmp_path / "whole", "pretrain.py", *USUAL).result()
    for _ in range(2):
        run = Run(tmp_path / "parts", "pretrain.py", *USUAL, "--slow", "0.1")
        run.wait_for_step(random.randrange(3, 11))
        run.process.kill()
        run.end()
        (run.folder / "step").unlink()
    assert Run(tmp_path / "parts", "pretrain.py", *USUAL).result() == whole


@pytest.mark.slow
def test_preempted_at_an_evaluation_and_goes_on_it_is_the_same_run(tmp_path):
    """The evaluation that was due at the step that is saved is made after the resume."""
    whole = Run(tmp_path / "whole", "pretrain.py", *USUAL, "--eval_steps", "1").result()
    run = Run(tmp_path / "parts", "pretrain.py", *USUAL, "--eval_steps", "1", "--slow", "0.1")
    run.wait_for_step(4)
    os.kill(json.loads(run.read("run/ranks/1.json"))["pid"], signal.SIGTERM)
    assert run.end()[0] == 75
    assert Run(tmp_path / "parts", "pretrain.py", *USUAL, "--eval_steps", "1").result() == whole


@pytest.mark.slow
def test_saved_on_two_ranks_it_is_restored_on_one(tmp_path):
    """At the restore the weights are the same: a run that is over, started on another number of ranks."""
    (two,) = Run(tmp_path / "run", "pretrain.py", *USUAL).result()
    code, err, (one,) = Run(tmp_path / "run", "pretrain.py", *USUAL, ranks=1).end()
    assert code == 0, err
    assert "a step of this run had 8 samples and has 4 now" in err
    assert (one["step"], one["weights"]) == (two["step"], two["weights"])
