"""The tools of `dtk ckpt`, called in this process."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
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


@pytest.fixture
def same_variables() -> Iterator[None]:
    """Take away variables that a package sets when it is first used, as torch's optimizers and transformers do."""
    before = dict(os.environ)
    yield
    for name in os.environ.keys() - before.keys():
        del os.environ[name]


@pytest.fixture
def rt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A runtime of one process, in the test's folder."""
    import dist_toolkit as dtk

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))  # torch sets it, and leaves it, otherwise
    with dtk.init(seed=0, device="cpu") as runtime:
        yield runtime
