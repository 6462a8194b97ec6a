"""What the documents say is run: README's blocks, its script, and that every link and file they name is there."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.cli

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BIN = Path(sys.executable).parent
DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("slurm/**/*.md"), *ROOT.glob("examples/*.md")]

MY_PROJECT = """
import torch
from torch import nn
from torch.utils.data import TensorDataset

def Net():
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))

def open_dataset():
    x = torch.randn(2048, 8, generator=torch.Generator().manual_seed(0))
    return TensorDataset(x, (x.sum(1) > 0).long())
"""


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    env = {key: value for key, value in os.environ.items() if not key.startswith(("DTK_", "PET_"))}
    env["PATH"] = f"{BIN}{os.pathsep}{env['PATH']}"
    return subprocess.run(command, cwd=folder, env=env, text=True, capture_output=True, timeout=120, check=False)


def test_the_two_commands_are_targets_of_make() -> None:
    first = blocks("bash")[0]
    assert re.findall(r"^(make \w+)", first, re.MULTILINE) == ["make demo", "make test"]
    for target in ("demo", "test"):
        done = run(["make", "--dry-run", target], ROOT)
        assert done.returncode == 0, done.stderr


def test_a_second_make_installs_nothing(tmp_path: Path) -> None:
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").touch()
    first = run(["make", "--dry-run", "demo"], tmp_path).stdout
    assert "pip install" in first
    assert "--constraint constraints.txt" in first
    for stamp in (".demo", ".dev"):
        (tmp_path / ".venv" / stamp).touch()
    for target in ("demo", "test"):
        assert "pip install" not in run(["make", "--dry-run", target], tmp_path).stdout
    os.utime(tmp_path / "constraints.txt", (2**31, 2**31))
    assert "pip install" in run(["make", "--dry-run", "test"], tmp_path).stdout


@pytest.mark.parametrize("line", blocks("bash")[1].splitlines())
def test_commands_of_the_readme_run(tmp_path: Path, line: str) -> None:
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    done = run(shlex.split(line), tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout


@pytest.mark.parametrize(
    "launcher",
    [["dtk", "launch", "--nproc", "2"], pytest.param([sys.executable], marks=pytest.mark.slow)],
    ids=["dtk", "python"],
)
def test_script_of_the_readme_runs_as_written(tmp_path: Path, launcher: list[str]) -> None:
    """With fewer steps, else as it stands; started again, on one process, there is nothing left to do."""
    script = blocks("python")[0]
    shorter = script.replace("until=10_000", "until=100").replace("every=1000", "every=20")
    assert shorter.count("until=100") == shorter.count("every=20") == 1
    (tmp_path / "train.py").write_text(shorter)
    (tmp_path / "my_project.py").write_text(MY_PROJECT)
    done = run([*launcher, "train.py"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.findall(r"step (\d+)  loss 0\.\d+", done.stdout) == ["50", "100"], done.stdout
    kept = sorted(path.name for path in (tmp_path / "runs" / "demo").iterdir() if path.name.startswith("step-"))
    assert kept == ["step-00000060", "step-00000080", "step-00000100"]
    again = run([sys.executable, "train.py"], tmp_path)
    assert again.returncode == 0, again.stderr
    assert "restored step 100" in again.stderr
    assert "loss" not in again.stdout


PAGES = [
    pytest.param("strategies", "ddp", r"ddp: accuracy (0\.9|1\.0)", marks=pytest.mark.slow),
    pytest.param("strategies", "fsdp", r"fsdp: accuracy (0\.9|1\.0)", marks=pytest.mark.slow),
    ("data", "ddp", r"place in the data: \{"),
    ("road", "ddp", r"20 steps an epoch, 48 different .*\n.* 10 steps an epoch, 96 different"),
    ("saving", "ddp", r"left at step [1-9]\d+, went back to 50, now at 60; best \d"),
]


@pytest.mark.parametrize(("page", "strategy", "said"), PAGES)
def test_scripts_of_the_pages_run_as_written(tmp_path: Path, page: str, strategy: str, said: str) -> None:
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    (script,) = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    (tmp_path / "train.py").write_text(script)
    done = run(["dtk", "launch", "--nproc", "2", "--strategy", strategy, "train.py"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.search(said, done.stdout), done.stdout


BENCHMARKS = re.findall(r"^(dtk .*)$", (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("line", BENCHMARKS)
def test_commands_of_the_benchmarks_page_run(tmp_path: Path, line: str) -> None:
    shutil.copytree(ROOT / "benchmarks" / "reports", tmp_path / "benchmarks" / "reports")
    done = run(shlex.split(line), tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_point_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", document.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (document.parent / target).exists(), target


def test_files_that_the_documents_name_are_there() -> None:
    for document in (ROOT / "CONTRIBUTING.md", ROOT / "docs" / "checkpoint-format.md"):
        for name in re.findall(r"`((?:tests|dist_toolkit|launch|slurm|examples)/[\w/.]+)`", document.read_text()):
            assert (ROOT / name).exists(), f"{document.name}: {name}"
