"""The tools of `dtk ckpt`, called in this process."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dist_toolkit.checkpoint.tool.app import main


@dataclass(frozen=True)
class Answer:
    """What a command said; `out` with ROOT for the test's folder."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def ckpt(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., Answer]:
    """Run `dtk ckpt WORDS`."""

    def call(*words: object) -> Answer:
        code = main([str(word) for word in words])
        out, err = capsys.readouterr()
        return Answer(code, out.replace(str(tmp_path), "ROOT"), err.replace(str(tmp_path), "ROOT"))

    return call
