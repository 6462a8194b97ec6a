"""`dtk bench advise` on scripts that really train."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.cli

ROOT = Path(__file__).parents[2]
PLAIN = """
import os
import sys
import torch

batch = int(sys.argv[1])
model = torch.nn.Linear(16, 4)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for step in range(10_000):
    loss = model(torch.randn(batch, 16)).square().mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    open("steps" + os.environ["RANK"], "a").write(f"{step}\\n")
open("end", "w").close()
"""


def advise(folder: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dtk_launch", "bench", "advise", "--device", "cpu", "--out", "out", "--json", *argv],
        cwd=folder, capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two cores")
@pytest.mark.slow
def test_a_plain_loop_without_a_process_group_is_ended_after_some_steps(tmp_path):
    (tmp_path / "plain.py").write_text(PLAIN)
    words = ["--nproc", "2", "--rounds", "1", "--warmup", "2", "--steps", "9", "--batch", "8"]
    done = advise(tmp_path, "--strategies", "single,ddp", *words, "./plain.py", "{batch}")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["command"] == "dtk launch --nproc 1 --device cpu ./plain.py 8", "two copies are no way to train"
    machine, *seen = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]
    assert [record["threads"] for record in seen if record["kind"] == "seen"] == [
        machine["cores"],
        machine["cores"] // 2,
    ]
    assert "does not follow --strategy**: its 2 ranks made no process group" in " ".join(found["reasons"])
    assert found["measured"][0]["weights"] == 16 * 4 + 4
    for rank, starts in ((0, 2), (1, 1)):
        steps = (tmp_path / f"steps{rank}").read_text().split()
        assert len(steps) == starts * (2 + 9), "the next one ends it, on every rank"
    assert not (tmp_path / "end").exists()
    assert (tmp_path / "out" / "report.html").exists()


@pytest.mark.slow
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two cores")
def test_strategies_of_a_script_of_this_package_one_of_which_fails(tmp_path):
    script = (ROOT / "examples" / "train_digits.py").read_text()
    refused = 'import os\nassert os.environ["DTK_STRATEGY"] != "fsdp", "not today"\n'
    (tmp_path / "digits.py").write_text(script.replace("import argparse\n", f"import argparse\n{refused}", 1))
    words = ["--strategies", "ddp,fsdp,zero2", "--nproc", "2", "--rounds", "1", "--steps", "10", "--batch", "32,64"]
    done = advise(tmp_path, *words, "digits.py", "--save-every", "2", "--global-batch-size", "{batch}")
    assert done.returncode == 1, done.stderr
    assert "2 of 6 failed: fsdp, 2 ranks, batch 32; fsdp, 2 ranks, batch 64; the others were measured" in done.stderr
    found = json.loads(done.stdout)
    assert {each["candidate"]["strategy"] for each in found["measured"] if each["failed"]} == {"fsdp"}
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".py"] == ["out"], "no checkpoint"
    by = {each["candidate"]["strategy"]: each for each in found["measured"] if each["candidate"]["batch"] == 32}
    assert "not today" in by["fsdp"]["failed"]
    assert by["ddp"]["all_reduce"] > 0
    assert by["ddp"]["weights"] == by["zero2"]["weights"] > 1000


@pytest.mark.slow
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two cores")
def test_a_model_under_each_strategy(tmp_path):
    done = advise(tmp_path, "--nproc", "2", "--rounds", "1", "--steps", "5", "--warmup", "2", "--batch", "32", "mlp")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert not any(each["failed"] for each in found["measured"])
    assert len({each["weights"] for each in found["measured"]}) == 1


def test_a_script_that_does_not_train(tmp_path):
    (tmp_path / "train.py").write_text("print('hello')\n")
    done = advise(tmp_path, "--strategies", "single", "--rounds", "1", "train.py")
    assert done.returncode == 1
    assert "made no step of a torch optimizer" in done.stderr
    assert json.loads(done.stdout)["best"] is None
