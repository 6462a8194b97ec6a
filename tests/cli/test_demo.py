"""The demo, as a stranger runs it: it trains, survives a SIGKILL anywhere, and ends with the same weights."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import random
import re
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

pytestmark = pytest.mark.cli

BIN = Path(sys.executable).parent
DEMO = Path(__file__).parents[2] / "examples" / "train_digits.py"
EPOCHS = 16
STEPS = EPOCHS * 14


@dataclass
class Launch:
    """One `dtk launch --nproc 2 examples/train_digits.py`."""

    process: subprocess.Popen[str]
    run_dir: Path
    since: float

    def finish(self, timeout: float = 120.0) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=timeout)
        return self.process.returncode, out, err

    def record(self, rank: int) -> dict:
        """The rank's record of this launch, once it is there."""
        path = self.run_dir / "ranks" / f"{rank}.json"
        deadline = time.monotonic() + 60
        while not (path.exists() and path.stat().st_mtime >= self.since):
            assert time.monotonic() < deadline, "the rank did not start"
            time.sleep(0.02)
        return json.loads(path.read_text())

    def torchrun(self) -> int:
        (child,) = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return int(child)

    def wait_for_step(self, step: int) -> None:
        """Until the checkpoint of `step` or of a later one is committed."""
        deadline = time.monotonic() + 60
        while newest(self.run_dir) < step:
            assert self.process.poll() is None, self.finish()
            assert time.monotonic() < deadline, "no checkpoint"
            time.sleep(0.002)

    def stop_in_a_save(self, ranks: list[int]) -> None:
        """Stop the ranks while a checkpoint is being written: what is then killed dies in the middle of a save."""
        deadline = time.monotonic() + 60
        while True:
            assert time.monotonic() < deadline, "no save seen"
            if not self.saving():
                time.sleep(0.0002)
                continue
            for signum in (signal.SIGSTOP, signal.SIGCONT):
                for pid in ranks:
                    os.kill(pid, signum)
                if signum == signal.SIGSTOP:
                    time.sleep(0.02)
                    if self.saving():
                        return

    def saving(self) -> bool:
        """Whether a temporary directory is there."""
        return any(name.endswith(".tmp") for name in checkpoints(self.run_dir))


def launch(run_dir: Path, *options: str) -> Launch:
    env = {key: value for key, value in os.environ.items() if not key.startswith(("DTK_", "PET_", "OMP_"))}
    command = [BIN / "dtk", "launch", "--nproc", "2", "--device", "cpu", "--run-dir", run_dir, *options, DEMO]
    since = time.time()
    process = subprocess.Popen(
        [*map(str, command), "--epochs", str(EPOCHS), "--save-every", "10"],
        cwd=run_dir.parent, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    return Launch(process, run_dir, since)


def go_on(ranks: set[int]) -> None:
    """Undo a stop of those that are still there."""
    for pid in ranks:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def checkpoints(run_dir: Path) -> list[str]:
    folder = run_dir / "checkpoints"
    return sorted(os.listdir(folder)) if folder.exists() else []


def newest(run_dir: Path) -> int:
    """The last step that is saved."""
    return max((int(name[5:13]) for name in checkpoints(run_dir) if re.fullmatch(r"step-\d+", name)), default=0)


def fingerprint(run_dir: Path) -> dict[str, list[str]]:
    """Digests of every tensor of the last step: weights, both Adam moments, step counts, every rank's generators."""
    manifest = json.loads((run_dir / "checkpoints" / f"step-{STEPS:08d}" / "manifest.json").read_text())["body"]
    tensors = {name: [chunk[5] for chunk in entry["chunks"]] for name, entry in manifest["tensors"].items()}
    assert any(name.startswith("model.") for name in tensors)
    assert any(name.endswith("exp_avg_sq") for name in tensors)
    assert any(name.startswith("rng.1.") for name in tensors)
    return tensors | {"loader": [json.dumps(manifest["values"]["loader"])]}


def gone(pids: list[int], patience: float = 10.0) -> bool:
    def alive(pid: int) -> bool:
        try:
            return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
        except OSError:
            return False

    return eventually(lambda: not any(map(alive, pids)), patience)


def eventually(question: Callable[[], bool], patience: float) -> bool:
    deadline = time.monotonic() + patience
    while not question() and time.monotonic() < deadline:
        time.sleep(0.05)
    return question()


def listening() -> dict[str, str]:
    """Socket inode -> local address of every listening TCP socket of this machine."""
    rows = [row.split() for name in ("tcp", "tcp6") for row in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    return {row[9]: row[1] for row in rows if row[3] == "0A"}


def sockets(pids: list[int]) -> set[str]:
    """Inodes of the listening sockets that these processes hold."""
    held = set()
    for pid in pids:
        for fd in Path(f"/proc/{pid}/fd").iterdir():
            target = os.readlink(fd)
            if target.startswith("socket:["):
                held.add(target[8:-1])
    return held & set(listening())


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """The uninterrupted run."""
    run_dir = tmp_path_factory.mktemp("reference") / "run"
    code, out, err = launch(run_dir).finish()
    assert code == 0, err
    last = out.splitlines()[-1]
    assert float(re.search(r"test accuracy (0\.\d{3}|1\.000)$", last)[1]) >= 0.95, out
    assert out.count("test accuracy") == EPOCHS // 5 + 1, "printed once, not by every rank"
    assert len(checkpoints(run_dir)) == 3
    return fingerprint(run_dir)


@pytest.mark.parametrize(
    "ends",
    [["SIGTERM", "dtk"], pytest.param(["rank during a save", "SIGTERM", "torchrun", "dtk"], marks=pytest.mark.slow)],
    ids=len,
)
def test_killed_and_preempted_again_and_again_ends_with_the_same_weights(
    tmp_path: Path, reference: dict[str, list[str]], ends: list[str]
) -> None:
    """Each start goes on from the last save, and is ended in another way; nothing is left behind by any of them.

    A rank is killed during a save below; torchrun, whose end the ranks see as they see dtk's, in the longer one.
    """
    run_dir, choices, seen = tmp_path / "run", random.Random(), 0
    for number, end in enumerate(ends):
        run = launch(run_dir)
        ranks = [run.record(rank)["pid"] for rank in (0, 1)]
        everyone = [run.process.pid, run.torchrun(), *ranks]
        step = seen + choices.randrange(10, 20)
        run.wait_for_step(step)
        if "save" in end:
            run.stop_in_a_save(ranks)
        else:
            time.sleep(choices.random() * 0.1)
        ports = sockets(everyone)
        assert ports, "the ranks have met somewhere"
        target = {"rank": choices.choice(ranks), "torchrun": everyone[1]}.get(end.split()[0], everyone[0])
        os.kill(target, signal.SIGTERM if end == "SIGTERM" else signal.SIGKILL)
        if "save" in end:
            go_on({*ranks} - {target})
        code, _, err = run.finish()
        assert code == 75 if end == "SIGTERM" else code != 0, (end, code, err)
        assert ("started again, it goes on" in err) == (end == "SIGTERM"), err
        assert ("restored step" in err) == (number > 0), err
        assert gone(everyone), f"{end}: a process is left"
        assert eventually(lambda ports=ports: not ports & set(listening()), 5.0), f"{end}: a port is left"
        before, seen = seen, newest(run_dir)
        assert before < step <= seen < STEPS, f"{end} came too late to show anything (step {seen})"
    code, _, err = launch(run_dir).finish()
    assert code == 0, err
    assert f"restored step {seen}" in err
    assert fingerprint(run_dir) == reference
    assert [name for name in checkpoints(run_dir) if not re.fullmatch(r"step-\d{8}", name)] == []


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_killed_ten_times_ends_with_the_same_weights(tmp_path: Path, reference: dict[str, list[str]]) -> None:
    """Any of the processes, at any moment from the start of the ranks on; what was saved is never lost again."""
    run_dir, choices, steps = tmp_path / "run", random.Random(), [0]
    for _ in range(10):
        run = launch(run_dir)
        ranks = [run.record(rank)["pid"] for rank in (0, 1)]
        pids = [run.process.pid, run.torchrun(), *ranks]
        time.sleep(choices.uniform(0, 7))
        with contextlib.suppress(ProcessLookupError):
            os.kill(choices.choice(pids), signal.SIGKILL)
        run.finish()
        assert gone(pids)
        steps.append(newest(run_dir))
        assert steps[-1] >= steps[-2]
    code, _, err = launch(run_dir).finish()
    assert code == 0, err
    assert fingerprint(run_dir) == reference, steps


@pytest.mark.slow
def test_with_max_restarts_one_command_does_it_all(tmp_path: Path, reference: dict[str, list[str]]) -> None:
    """A rank is killed in the middle of a save."""
    run = launch(tmp_path / "run", "--max-restarts", "2")
    ranks = [run.record(rank)["pid"] for rank in (0, 1)]
    run.wait_for_step(20)
    run.stop_in_a_save(ranks)
    os.kill(ranks[1], signal.SIGKILL)
    go_on({ranks[0]})
    code, _, err = run.finish()
    assert code == 0, err
    assert "restored step" in err
    assert run.record(0)["restart"] == 1
    assert fingerprint(run.run_dir) == reference
    assert [name for name in checkpoints(run.run_dir) if not re.fullmatch(r"step-\d{8}", name)] == []


def run_alone(*runs: tuple[Path, list[str]]) -> list[subprocess.CompletedProcess[str]]:
    """Without a launcher: the runs, each a folder and options, at once and on one core each."""
    env = {key: value for key, value in os.environ.items() if not key.startswith(("DTK_", "PET_"))}

    def one(folder: Path, options: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(DEMO), "--epochs", "1", *options],
            cwd=folder, env=env | {"OMP_NUM_THREADS": "1"}, text=True, capture_output=True, timeout=120, check=False,
        )  # fmt: skip

    with ThreadPoolExecutor() as pool:
        return list(pool.map(one, *zip(*runs, strict=True)))


def test_same_program_without_a_launcher(tmp_path: Path) -> None:
    both = [["--model", "cnn", "--optimizer", "sgd"], ["--lr", "0.01", "--seed", "3", "--data", "digits"]]
    runs = [(tmp_path / options[1], [*options, "--global-batch-size", "64"]) for options in both]
    for folder, _ in runs:
        folder.mkdir()
    for (folder, _), done in zip(runs, run_alone(*runs), strict=True):
        assert done.returncode == 0, done.stderr
        assert re.search(r"^test accuracy 0\.\d{3}$", done.stdout.splitlines()[-1])
        assert (folder / "runs" / "train_digits" / "checkpoints").is_dir()


def write_mnist(root: Path, samples: int) -> None:
    """MNIST's files, as torchvision expects them, with random pixels."""
    folder = root / "MNIST" / "raw"
    folder.mkdir(parents=True)
    choices = random.Random(0)
    for name in ("train", "t10k"):
        images = struct.pack(">IIII", 2051, samples, 28, 28) + choices.randbytes(samples * 784)
        labels = struct.pack(">II", 2049, samples) + bytes(i % 10 for i in range(samples))
        for kind, data in (("images-idx3", images), ("labels-idx1", labels)):
            (folder / f"{name}-{kind}-ubyte").write_bytes(data)
            (folder / f"{name}-{kind}-ubyte.gz").write_bytes(gzip.compress(data))


@pytest.mark.slow
def test_mnist_is_read_and_never_fetched_unasked(tmp_path: Path) -> None:
    write_mnist(tmp_path / "data", 200)
    (tmp_path / "other").mkdir()
    missing, done = run_alone(
        (tmp_path / "other", ["--data", "mnist", "--root", "nowhere"]),
        (tmp_path, ["--data", "mnist", "--root", "data", "--model", "cnn"]),
    )
    assert missing.returncode == 1
    assert "no MNIST in nowhere" in missing.stderr
    assert "Traceback" not in missing.stderr
    assert not (tmp_path / "other" / "nowhere").exists()
    assert done.returncode == 0, done.stderr
    assert "test accuracy 0." in done.stdout
