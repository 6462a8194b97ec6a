"""Every example in a small form, on two ranks where it can: it ends well, and has learned something."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from tests.examples.conftest import all_cases
from tests.examples.in_turn import MARK
from tests.examples.running import BIN, EXAMPLES, Case, environment

pytestmark = [pytest.mark.cli, pytest.mark.timeout(600)]
IN_TURN = Path(__file__).with_name("in_turn.py")
LAUNCH = [BIN / "dtk", "launch", "--nproc", "2", "--device", "cpu"]


def kind(case: Case) -> str:
    """Which start it belongs to; what makes the process group itself has ranks of its own."""
    return "alone" if case.modes[0] == "alone" else "ddp" if len(case.modes) > 1 else case.name


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Case], str]:
    """What an example printed. The ranks of a kind start once, and run all of its examples in turn."""

    @cache
    def of(wanted: str) -> list[str]:
        cases = [case for case in all_cases() if kind(case) == wanted]
        named = [[f"{number}-{case.name}", case.script, case.args] for number, case in enumerate(cases)]
        script = [IN_TURN, json.dumps(named)] if len(cases) > 1 else [EXAMPLES / cases[0].script, *cases[0].args]
        words = [*([sys.executable] if wanted == "alone" else LAUNCH), *script]
        folder = tmp_path_factory.mktemp("examples")
        done = subprocess.run(
            [*map(str, words)], cwd=folder, env=environment(), capture_output=True, text=True, timeout=500, check=False
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
        return re.split(rf"^(?:\[0\] )?{MARK}\S+\n", done.stdout, flags=re.MULTILINE)[-len(cases) :]

    return lambda case: of(kind(case))[[c for c in all_cases() if kind(c) == kind(case)].index(case)]


def test_it_runs_and_learns(case: Case, outputs: Callable[[Case], str]) -> None:
    case.check(outputs(case))
