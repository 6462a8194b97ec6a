"""The metrics that the examples print: those of two ranks are those of one process with the same weights."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.examples import cases_language
from tests.examples.running import Case, start

pytestmark = [pytest.mark.cli, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.mark.parametrize("example", cases_language.CASES, ids=lambda case: case.name)
def test_two_ranks_and_one_process_print_the_same_number(example: Case, tmp_path: Path) -> None:
    """The run of two ranks, started again on one process: there is nothing left to train, and it evaluates."""
    code, of_two, err = start(example, "ddp", tmp_path).finish()
    assert code == 0, err
    code, of_one, err = start(example, "alone", tmp_path).finish()
    assert code == 0, err
    assert "restored step" in err
    assert of_one.splitlines()[-1] == of_two.splitlines()[-1].removeprefix("[0] ")
