"""Every example in a small form, on two ranks where it can: it ends well, and has learned something."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.examples.running import Case, start

pytestmark = pytest.mark.cli


def test_it_runs_and_learns(case: Case, tmp_path: Path) -> None:
    code, out, err = start(case, case.modes[0], tmp_path).finish()
    assert code == 0, err
    case.check(out)
