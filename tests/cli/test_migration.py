"""docs/migration: dtk's commands there are taken as they stand, and every name there exists, theirs and ours."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from accelerate import Accelerator
from lightning.fabric import Fabric

import dist_toolkit as dtk
from dist_toolkit.checkpoint import Checkpointer
from dist_toolkit.runtime import Runtime
from dist_toolkit.strategies import Engine
from tests.slurm_guide import quotes, rows

pytestmark = pytest.mark.cli
FOLDER = Path(__file__).parents[2] / "docs" / "migration"
PAGES = sorted(FOLDER.glob("*.md"))
OBJECTS: dict[str, Any] = {
    "dtk": dtk, "rt": Runtime, "engine": Engine, "ckpt": Checkpointer, "accelerator": Accelerator, "fabric": Fabric,
}  # fmt: skip
SET_BY_INIT = {"engine": {"module"}, "rt": {"log"}}
"""Attributes that a class has not, and its objects have."""


def quoted(page: Path) -> list[str]:
    """All code in its tables."""
    return [quote for cells in rows(page.read_text(encoding="utf-8")) for cell in cells for quote in quotes(cell)]


COMMANDS = sorted({q for page in PAGES for q in quoted(page) if re.match(r"dtk (launch|submit) .*train\.py", q)})


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_is_taken(command: str, tmp_path: Path) -> None:
    """By `--dry-run`, which checks all that can be checked here; GPUs are not."""
    (tmp_path / "train.py").write_text("import argparse\n")
    words = shlex.split(command.replace("--device cuda ", "").replace("node1", "127.0.0.1"))[1:]
    words.insert(1, "--dry-run")
    done = subprocess.run(
        [sys.executable, "-m", "dtk_launch", *words], cwd=tmp_path, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "train.py" in done.stdout


def test_there_are_such_commands_on_every_page() -> None:
    assert len(PAGES) == 4
    for page in PAGES:
        assert any(quote in COMMANDS for quote in quoted(page)), page.name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_name_exists(page: Path) -> None:
    found = 0
    for quote in quoted(page):
        for name, attribute in re.findall(rf"\b({'|'.join(OBJECTS)})\.([a-z_A-Z]\w*)", quote):
            if attribute not in SET_BY_INIT.get(name, ()) and not quote.endswith((".toml", ".json")):
                assert hasattr(OBJECTS[name], attribute), quote
                found += 1
    assert found
