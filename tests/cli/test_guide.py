"""The guide of slurm/README.md says what dtk says: its script, its messages, and SLURM's that dtk explains."""

import ast
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from dtk_launch.schedulers.slurm import Slurm
from dtk_launch.schedulers.slurm_reasons import reason_words
from dtk_launch.schedulers.slurm_words import meaning

from tests.slurm_guide import HOME, block, commands, part, quotes, rows

pytestmark = pytest.mark.cli
ROOT = Path(__file__).parents[2]
LINES = "What each line of the script does"


def test_its_script_is_the_one_that_dtk_renders(tmp_path):
    (command,) = [words for words, _ in commands(part("The first job in five minutes")) if "--dry-run" in words]
    folder = tmp_path / "first-job"
    folder.mkdir()
    (folder / "train.py").touch()
    beside = str(Path(sys.executable).parent)
    env = {key: value for key, value in os.environ.items() if not key.startswith(("DTK_", "PET_"))}
    words = [sys.executable, "-m", "dtk_launch", *shlex.split(command)[1:]]
    done = subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    rendered = done.stdout.replace(f"{beside}/dtk", f"{HOME}/dtk-env/bin/dtk").replace(str(tmp_path), HOME)
    assert block(part(LINES), "bash") == rendered


def test_every_line_of_it_is_explained_in_its_order():
    lines = block(part(LINES), "bash").splitlines()
    explained = [cells[0].strip("`") for cells in rows(part(LINES))]
    assert len(lines) == len(explained)
    for line, beginning in zip(lines, explained, strict=True):
        assert line.strip().startswith(beginning.strip()), beginning


def texts_of_dtk():
    """Every text in the launcher and its template, with an ellipsis for what is filled in."""
    for file in (ROOT / "launch").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                yield "".join(part.value if isinstance(part, ast.Constant) else filled_in(part) for part in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value
    yield re.sub(r"\$\w+", "…", (ROOT / "slurm" / "job.sbatch.j2").read_text(encoding="utf-8"))


def filled_in(part: ast.expr) -> str:
    program = isinstance(part, ast.FormattedValue) and ast.unparse(part.value) == "scheduler.program"
    return Slurm.program if program else "…"


def test_what_dtk_says_in_it_is_what_dtk_says():
    known = list(texts_of_dtk())
    said = [quote for title in ("dtk, at your prompt", "dtk, in the log") for quote in messages(title)]
    assert [quote for quote in said if not any(quote.strip("… ") in text for text in known)] == []


def test_what_slurm_says_at_submit_and_of_waiting_jobs_is_what_dtk_explains():
    assert [quote for quote in messages("SLURM, at `dtk submit`") if not meaning(quote)] == []
    assert [quote for quote in messages("SLURM, why a job waits") if not reason_words(quote, "7")] == []


def messages(title: str) -> list[str]:
    """The first cells of a table of messages."""
    found = [quote for cells in rows(part(title)) for quote in quotes(cells[0])]
    assert len(found) > 9
    return found
