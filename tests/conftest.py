"""Options and fixtures of every kind of test."""

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest

from tests import s3_server
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


@pytest.fixture(scope="session")
def s3_process() -> Iterator[s3_server.S3Server | None]:
    """A server until the end of the session, with the threads that fsspec keeps; None where a package is missing.

    To be asked for by a module whose tests ask for `s3` by its value: it must be there before a test begins.
    """
    if importlib.util.find_spec("s3fs") is None or importlib.util.find_spec("moto") is None:
        yield None
        return
    import s3fs

    servers = s3_server.running()
    server = next(servers)
    s3fs.S3FileSystem(
        endpoint_url=server.endpoint, key="test", secret="test", use_listings_cache=False, skip_instance_cache=True
    ).ls(s3_server.BUCKET)
    yield server
    servers.close()


@pytest.fixture
def s3(s3_process: s3_server.S3Server | None, monkeypatch: pytest.MonkeyPatch) -> s3_server.S3Server:
    """A server with a bucket, which s3:// finds by the environment; it fails no request yet."""
    if s3_process is None:
        pytest.skip("needs s3fs and moto's server: pip install s3fs moto flask flask-cors")
    for name, value in {**s3_server.ENVIRONMENT, "AWS_ENDPOINT_URL": s3_process.endpoint}.items():
        monkeypatch.setenv(name, value)
    s3_process.reset()
    return s3_process
