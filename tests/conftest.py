"""Options and fixtures of every kind of test."""

from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest

from tests.hygiene import Snapshot, leaks

# no deadline: a slow machine is not a failure; no random seed: a red run can be repeated
hypothesis.settings.register_profile("suite", deadline=None, derandomize=True)
hypothesis.settings.load_profile("suite")

GOLDEN = Path(__file__).parent / "golden"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write the golden files instead of comparing")


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """A function that compares a text with tests/golden/NAME as a whole."""

    def compare(name: str, text: str) -> None:
        path = GOLDEN / name
        if request.config.getoption("--update-golden"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        assert path.exists(), f"{path} is missing; pytest --update-golden writes it"
        assert text == path.read_text(encoding="utf-8")

    return compare


@pytest.fixture(autouse=True)
def hygiene(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves something behind; the tests of the cluster look after it themselves."""
    if "slurm" in request.keywords:
        yield
        return
    before = Snapshot.take()
    yield
    left = leaks(before)
    assert not left, f"left behind: {left}"
