"""State that should be the same on every rank and is not: said once, and rank 0's is what comes back."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.program import Program, found, results


def test_a_state_that_differs_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def body(program: Program) -> None:
        program.fill(10.0)
        program.ckpt.save(1)
        assert not caplog.records
        for step in (2, 3):
            program.fill(10.0 * step)
            program.numbers.rate += program.group.world.rank
            program.ckpt.save(step)

    results(tmp_path, body, 2)
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 1
    assert said[0].startswith("the state of 'numbers' is not the same on every rank; that of rank 0 is saved")
    assert found(tmp_path, 2) == (3, 30.0)
