"""Every example on one process and under every strategy that it can: killed and started again, it is the same run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.examples.running import Case, fingerprint, saved_steps, start

pytestmark = [pytest.mark.cli, pytest.mark.slow, pytest.mark.timeout(900)]


def test_killed_and_started_again_it_is_the_same_run(case: Case, mode: str, tmp_path: Path) -> None:
    """An uninterrupted run, and one that is killed after a save: the same last checkpoint, bit for bit."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for folder in (whole, parts):
        folder.mkdir()
    code, out, err = start(case, mode, whole).finish()
    assert code == 0, err
    case.check(out)

    start(case, mode, parts).kill_after_a_save()
    seen = saved_steps(case, parts)[-1]
    code, again, err = start(case, mode, parts).finish()
    assert code == 0, err
    assert case.file is not None or f"restored step {seen}" in err, err
    assert fingerprint(case, parts) == fingerprint(case, whole)
    assert again.splitlines()[-1] == out.splitlines()[-1]
