"""docs/guide, typed command by command in one folder: each exits as it should and prints what the page shows."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest

from tests.slurm_guide import commands

pytestmark = pytest.mark.cli
GUIDE = Path(__file__).parents[2] / "docs" / "guide"
SCRIPT = re.compile(r"Write this to `(\w+\.py)`.*?^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
KILLED = "dtk launch --nproc 2 --name killed train.py"
FAILS = {"dtk launch --nproc 2 bad.py": 1, "dtk launch --nproc 2 --strategy single bad.py": 2}
"""Commands of the guide that are to fail, and their exit codes."""


@dataclass
class Shell:
    """Where a reader of the guide is."""

    folder: Path

    def type(self, command: str) -> tuple[int, str]:
        """Run a command here; its exit code and all that it printed."""
        if command.startswith("cd "):
            self.folder /= command[3:]
            return 0, ""
        done = subprocess.run(
            shlex.split(command), cwd=self.folder, env=environment(), capture_output=True, text=True, timeout=120,
            check=False,
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr

    def kill_while_it_trains(self, command: str) -> None:
        """Start a command, and kill dtk and with it the ranks as soon as there is a checkpoint."""
        first = self.folder / "runs" / "killed" / "checkpoints" / "step-00000100"
        with subprocess.Popen(
            shlex.split(command), cwd=self.folder, env=environment(), stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:  # fmt: skip
            deadline = time.monotonic() + 60
            while not first.exists():
                assert process.poll() is None, "it ended before its first checkpoint"
                assert time.monotonic() < deadline, "no checkpoint"
                time.sleep(0.001)
            process.send_signal(signal.SIGKILL)


def environment() -> dict[str, str]:
    """A reader's: no variable of a run, dtk and python on the PATH."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("DTK_", "PET_", "CI"))}
    return kept | {"PATH": f"{Path(sys.executable).parent}:{kept['PATH']}", "OMP_NUM_THREADS": "1"}


def alike(text: str, folder: Path) -> list[str]:
    """Its lines, with other numbers put down as equal, paths from here, without warnings and what came from a log."""
    lines = text.replace(f"{folder}/", "").splitlines()
    kept = [line for line in lines if line.strip() and not re.search(r"\[W\d|dtk: note: |restored step ", line)]
    return [re.sub(r"\s+", " ", re.sub(r"\d+([.:-]\d+)*", "N", line)).strip() for line in kept]


def follow(shell: Shell, page: str) -> int:
    """Type the commands of a page, and compare; how many there were."""
    text = (GUIDE / f"{page}.md").read_text(encoding="utf-8")
    for name, script in SCRIPT.findall(text):
        (shell.folder / name).write_text(script)
    typed = commands(text)
    for number, (command, printed) in enumerate(typed):
        if command == KILLED and (KILLED, "") in typed[number + 1 :]:
            shell.kill_while_it_trains(command)
            continue
        code, said = shell.type(command)
        assert code == FAILS.get(command, 0), f"{command}\n{said}"
        if printed:
            assert alike(said, shell.folder) == alike(printed, shell.folder), command
        else:
            assert said or command.startswith("cd ") or command == KILLED, command
    return len(typed)


def test_the_first_page_is_true(tmp_path: Path) -> None:
    assert follow(Shell(tmp_path), "1-first-launch") > 5


@pytest.mark.slow
def test_the_pages_before_the_cluster_and_the_last_are_true(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    for page in ("1-first-launch", "2-data", "3-strategies", "4-checkpoints", "6-when-it-fails"):
        assert follow(shell, page) > 1
    killed = (shell.folder / "runs" / "killed" / "ranks" / "0.err").read_text()
    assert re.search(r"restored step (100|200)", killed), "it was killed in the middle, and went on"


def test_every_page_leads_to_the_next() -> None:
    pages = sorted(path.name for path in GUIDE.glob("[0-9]*.md"))
    assert len(pages) == 6
    index = (GUIDE / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"\]\((\d[\w-]+\.md)\)", index) == pages
    for page, following in pairwise(pages):
        last = (GUIDE / page).read_text(encoding="utf-8").rstrip().splitlines()[-1]
        assert f"]({following})" in last
