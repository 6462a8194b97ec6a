"""One rank of `dtk bench advise`, around scripts that train, and the driver's end of its connection."""

import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import advise as program
import pytest
from advise_parts.arguments import parse
from advise_parts.candidates import Candidate
from bench_parts.channel import Channel, Meeting
from bench_parts.processes import ProcessFailed, temporary_folder

ROOT = Path(__file__).parents[3]
TRAIN = """
import torch
model = torch.nn.Linear(4, 2)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for _ in range({steps}):
    model(torch.randn(8, 4)).sum().backward()
    optimizer.step()
"""


@contextmanager
def probed(folder, script, **environ):
    """The process of a rank, and where it reports."""
    (folder / "train.py").write_text(script)
    words = ["--warmup=1", "--steps=5", "--seconds=30", "train.py"]
    with temporary_folder() as home:
        meeting = Meeting(home)
        environment = {**os.environ, **meeting.environment, "DTK_RUN_DIR": str(folder / "run"), **environ}
        environment["PYTHONPATH"] = str(ROOT)
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "benchmarks" / "_advise_rank.py"), *words],
            cwd=folder, env=environment, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            yield process, meeting
        finally:
            process.kill()
            process.communicate()
            meeting.close()


def records_of(channel: Channel):
    found = []
    while channel.ready(60):
        try:
            found.append(channel.receive())
        except (EOFError, OSError):
            break
    channel.close()
    return found


def test_a_rank_is_there_before_the_script_loads_and_tells_of_its_steps(tmp_path):
    os.mkfifo(tmp_path / "slow")
    with probed(tmp_path, "open('slow').close()\n" + TRAIN.format(steps=100)) as (process, meeting):
        channel = meeting.accept(60)
        assert channel is not None, "though the script waits"
        (tmp_path / "slow").write_text("")
        alive, seen = records_of(channel)
        assert process.wait(60) == 0
    assert alive == {"kind": "alive"}
    assert (seen["kind"], len(seen["seconds"]), seen["follows"]) == ("seen", 5, False)


def ranks_that_send(*records):
    @contextmanager
    def running(*_, **__):
        yield iter(records)

    return running


def test_the_driver_takes_what_was_seen_of_all_that_was_said(monkeypatch, tmp_path):
    given, candidate = parse(["--out", str(tmp_path), "mlp"], cores=2, gpus=0), Candidate("ddp", 2, 64)
    monkeypatch.setattr(program, "running", ranks_that_send(*[{"kind": "alive"}] * 2, {"kind": "seen", "weights": 7}))
    assert program._seen(given, candidate)["weights"] == 7
    monkeypatch.setattr(program, "running", ranks_that_send({"kind": "alive"}))
    with pytest.raises(ProcessFailed, match="the script ended its process before enough steps were seen"):
        program._seen(given, candidate)


MINE = """
import dist_toolkit as dtk

def main():
    import torch
    with dtk.init(seed=0) as rt:
        engine = rt.setup(lambda: torch.nn.Linear(4, 2), lambda weights: torch.optim.SGD(weights, lr=0.1))
        checkpointer = rt.checkpointer("runs/mine", engine=engine, every=1, keep_last=1)
        loader = rt.loader(torch.utils.data.TensorDataset(torch.randn(64, 4)), global_batch_size=8)
        for _ in checkpointer.steps(loader, until=100):
            engine.backward(engine(torch.randn(8, 4)).sum())
            engine.step()
"""


def test_checkpoints_are_kept_apart_whoever_imports_dist_toolkit(tmp_path):
    (tmp_path / "mytrain.py").write_text(MINE)
    with probed(tmp_path, "from mytrain import main\nmain()\n") as (process, meeting):
        *_, seen = records_of(meeting.accept(60))
        assert process.wait(60) == 0
    assert (seen["kind"], seen["follows"]) == ("seen", True)
    assert not (tmp_path / "runs").exists()
    assert list((tmp_path / "run" / "advise" / "runs-mine").iterdir())


@pytest.mark.parametrize(
    ("end", "message"),
    [("0", "the script made 2 optimizer steps, and 5 are needed; let it train longer"), ("'no data'", "no data\n")],
)
def test_a_script_that_exits_early_well_or_with_words_of_its_own(end, message, tmp_path):
    with probed(tmp_path, TRAIN.format(steps=2) + f"raise SystemExit({end})") as (process, meeting):
        assert [record["kind"] for record in records_of(meeting.accept(60))] == ["alive"]
        _, said = process.communicate(timeout=60)
        assert process.returncode == 1
    assert said.startswith(message)
