"""The examples as their readers start them: what a small run of each is, and how it is started, killed and compared."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BIN = Path(sys.executable).parent
EXAMPLES = Path(__file__).parents[2] / "examples"

MODES = {
    "alone": (),
    "ddp": ("--strategy", "ddp"),
    "fsdp": ("--strategy", "fsdp"),
    "zero1": ("--strategy", "deepspeed", "--zero-stage", "1"),
    "zero3": ("--strategy", "deepspeed", "--zero-stage", "3"),
}
"""How a script is run: `python SCRIPT`, or by `dtk launch --nproc 2` with these options."""


@dataclass(frozen=True)
class Case:
    """A small run of one example: a few seconds, with several checkpoints on the way.

    Attributes:
        script: its name in examples/.
        args: what makes it small.
        result: a pattern that the last line of the output fits; its group is a number that shows what was learned.
        at_least, at_most: what that number must reach.
        modes: keys of MODES that it can run in. The suite runs the first; all of them are slow tests.
        file: of a script that saves without dist_toolkit: its checkpoint, in the folder it runs in.
    """

    script: str
    args: tuple[str, ...]
    result: str
    at_least: float = float("-inf")
    at_most: float = float("inf")
    modes: tuple[str, ...] = ("ddp", "alone", "fsdp", "zero1", "zero3")
    file: str | None = None

    @property
    def name(self) -> str:
        """Of the script, without .py."""
        return self.script.removesuffix(".py")

    def check(self, output: str) -> None:
        """Its last line is the result, printed once, and good enough."""
        lines = [re.sub(r"^\[\d\] ", "", line) for line in output.splitlines()]  # dtk says which rank has printed it
        found = re.fullmatch(self.result, lines[-1])
        assert found, output
        assert sum(bool(re.fullmatch(self.result, line)) for line in lines) == 1, output
        assert self.at_least <= float(found[1]) <= self.at_most, output


@dataclass
class Run:
    """One start of an example."""

    case: Case
    process: subprocess.Popen[str]
    folder: Path

    def finish(self, timeout: float = 240.0) -> tuple[int, str, str]:
        """(exit code, stdout, stderr), when it has ended."""
        out, err = self.process.communicate(timeout=timeout)
        return self.process.returncode, out, err

    def kill_after_a_save(self) -> None:
        """SIGKILL as soon as a checkpoint is committed."""
        deadline = time.monotonic() + 240
        while not saved_steps(self.case, self.folder):
            assert self.process.poll() is None, self.finish()
            assert time.monotonic() < deadline, "no checkpoint"
            time.sleep(0.002)
        self.process.send_signal(signal.SIGKILL)
        assert self.finish()[0] != 0, "it ended before it was killed: make the run longer"


def environment() -> dict[str, str]:
    """Of an example: nothing of another run, one thread, no GPU."""
    env = {key: value for key, value in os.environ.items() if not key.startswith(("DTK_", "PET_", "OMP_"))}
    return env | {"OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "random", "CUDA_VISIBLE_DEVICES": ""}


def start(case: Case, mode: str, folder: Path) -> Run:
    """Start the example in `folder`, where its run directory is `run`; a later start there goes on from it."""
    env = environment()
    words: list[Any] = [EXAMPLES / case.script, *case.args]
    if mode == "alone":
        words = [sys.executable, *words]
        env["DTK_RUN_DIR"] = str(folder / "run")
    else:
        launch = [BIN / "dtk", "launch", "--nproc", "2", "--device", "cpu", "--run-dir", folder / "run", *MODES[mode]]
        words = [*launch, *words]
    process = subprocess.Popen(
        [*map(str, words)], cwd=folder, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    return Run(case, process, folder)


def saved_steps(case: Case, folder: Path) -> list[int]:
    """Steps whose checkpoints are committed; of a file, a 1 where it is there."""
    if case.file is not None:
        return [1] if (folder / case.file).exists() else []
    root = folder / "run" / "checkpoints"
    names = os.listdir(root) if root.exists() else []
    return sorted(int(name[5:]) for name in names if re.fullmatch(r"step-\d{8}", name))


def fingerprint(case: Case, folder: Path) -> dict[str, Any]:
    """What the last checkpoint holds: digests of every tensor, weights, optimizer and generators, and all values."""
    if case.file is not None:
        return _tensors(_load(folder / case.file))
    newest = saved_steps(case, folder)[-1]
    body = json.loads((folder / "run" / "checkpoints" / f"step-{newest:08d}" / "manifest.json").read_text())["body"]
    assert any(name.startswith("model.") or ".model." in name for name in body["tensors"])
    tensors = {name: [chunk[5] for chunk in entry["chunks"]] for name, entry in body["tensors"].items()}
    return {"step": newest, "tensors": tensors, "values": body["values"]}


def _load(path: Path) -> Any:
    import torch

    return torch.load(path)


def _tensors(value: Any) -> Any:
    """The same, with lists in the place of tensors."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, Mapping):
        return {str(key): _tensors(part) for key, part in value.items()}
    return [_tensors(part) for part in value] if isinstance(value, (list, tuple)) else value
