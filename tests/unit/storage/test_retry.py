"""Failures of an object store: those that may pass are tried again within a bound, others are not."""

from __future__ import annotations

import errno
import uuid
from typing import Any

import pytest

from dist_toolkit.errors import ConfigError
from dist_toolkit.storage import open_storage
from dist_toolkit.storage.objects import ObjectStorage
from dist_toolkit.storage.retry import Bound, bound_from, may_pass, retried
from tests.s3_server import BUCKET, S3Server

pytestmark = pytest.mark.usefixtures("s3_process")
QUICK = Bound(attempts=3, seconds=60.0, pause=0.001)


class Flaky:
    """Raises the errors it was given, one a call, and then works."""

    def __init__(self, *errors: Exception) -> None:
        self.errors, self.calls = list(errors), 0

    def __call__(self) -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "worked"


@pytest.mark.parametrize(
    "error",
    [
        ConnectionResetError("reset"), TimeoutError(), OSError(errno.EBUSY, "SlowDown"), EOFError("5 of 9 bytes"),
        BrokenPipeError(),
    ],
)  # fmt: skip
def test_a_failure_that_may_pass_is_tried_again(error: Exception) -> None:
    flaky = Flaky(error, error)
    assert retried("reading", flaky, QUICK) == "worked"
    assert flaky.calls == 3


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (PermissionError("AccessDenied"), PermissionError), (FileNotFoundError("no"), FileNotFoundError),
        (OSError(errno.ENOSPC, "No space left"), OSError), (TypeError("a bug"), OSError), (ValueError(), OSError),
    ],
)  # fmt: skip
def test_a_failure_that_lasts_is_not(error: Exception, kind: type[OSError]) -> None:
    flaky = Flaky(error)
    with pytest.raises(kind, match="writing s3://b/x"):
        retried("writing s3://b/x", flaky, QUICK)
    assert flaky.calls == 1


def test_the_bound_is_one_of_attempts_and_of_seconds() -> None:
    flaky = Flaky(*[ConnectionResetError("by peer")] * 9)
    with pytest.raises(OSError, match=r"reading x: given up after 3 attempt\(s\) in .* s: ConnectionResetError: by p"):
        retried("reading x", flaky, QUICK)
    assert flaky.calls == 3
    with pytest.raises(OSError, match=r"given up after 1 attempt\(s\)"):
        retried("reading x", flaky, Bound(attempts=9, seconds=0.0, pause=1.0))
    assert flaky.calls == 4


def test_the_status_of_a_server_decides() -> None:
    def answered(status: int) -> Exception:
        error = OSError(errno.EIO, "as translated")
        error.__cause__ = Exception()
        error.__cause__.response = {"ResponseMetadata": {"HTTPStatusCode": status}}  # type: ignore[attr-defined]
        return error

    assert [status for status in (400, 401, 403, 404, 408, 412, 429, 500, 501, 503) if may_pass(answered(status))] == [
        408, 429, 500, 503,
    ]  # fmt: skip


def test_options_come_from_the_environment() -> None:
    assert bound_from({}) == Bound()
    assert bound_from({"DTK_STORAGE_ATTEMPTS": "2", "DTK_STORAGE_SECONDS": "1.5"}) == Bound(2, 1.5)
    for name, text in (
        ("DTK_STORAGE_ATTEMPTS", "0"), ("DTK_STORAGE_ATTEMPTS", "1.5"), ("DTK_STORAGE_ATTEMPTS", "many"),
        ("DTK_STORAGE_SECONDS", "-1"), ("DTK_STORAGE_SECONDS", "inf"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=f"{name}='{text}'"):
            bound_from({name: text})


def test_an_upload_that_did_not_arrive_whole_is_sent_again() -> None:
    class Loses:
        """Keeps half of the first upload."""

        def __init__(self) -> None:
            self.objects: dict[str, bytes] = {}
            self.puts = 0

        def pipe_file(self, path: str, data: bytes) -> None:
            self.puts += 1
            self.objects[path] = data[: len(data) // 2] if self.puts == 1 else data

        def info(self, path: str) -> dict[str, Any]:
            return {"size": len(self.objects[path])}

    fs = Loses()
    ObjectStorage(fs, "bucket/run", "s3://bucket/run", QUICK).write_file("x", [b"1234"])
    assert fs.objects == {"bucket/run/x": b"1234"}
    assert fs.puts == 2


def place() -> str:
    return f"s3://{BUCKET}/{uuid.uuid4().hex}"


@pytest.mark.parametrize(("status", "code"), [(503, "SlowDown"), (500, "InternalError"), (0, "")])
def test_a_server_in_trouble_is_asked_again(s3: S3Server, status: int, code: str) -> None:
    storage = open_storage(place())
    storage.replace_file("x", b"1")
    for method in ("PUT", "GET", "HEAD"):
        s3.fail(method, "/x", status, 2, code)
    assert storage.write_file("x", [b"22"]) == 2
    assert storage.read_bytes("x") == b"22"
    with storage.open("x") as reader:
        assert reader.size == 2


def test_a_refusal_is_believed_at_once(s3: S3Server) -> None:
    storage = open_storage(place())
    storage.replace_file("x", b"1")
    for method in ("PUT", "GET", "HEAD", "DELETE"):
        s3.fail(method, "/x", 403, 99, "AccessDenied")
    for call in (
        lambda: storage.write_file("x", [b"1"]), lambda: storage.read_bytes("x"), lambda: storage.open("x"),
        lambda: storage.remove_file("x"),
    ):  # fmt: skip
        s3_before = len(s3.requests())
        with pytest.raises(PermissionError, match=rf"{storage.root}/x: refused"):
            call()
        assert len(s3.requests()) == s3_before + 1


def test_a_bucket_that_is_not_there_is_named(s3: S3Server) -> None:
    storage = open_storage("s3://no-such-bucket/run")
    for call in (lambda: storage.write_file("x", [b"1"]), lambda: storage.list(), lambda: storage.files()):
        with pytest.raises(OSError, match=r"s3://no-such-bucket/run.*the bucket does not exist"):
            call()


def test_no_server_and_no_credentials(s3: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("DTK_STORAGE_SECONDS", "0")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(OSError, match="given up after 1 attempt"):
        open_storage(place()).read_bytes("x")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.endpoint)
    with pytest.raises(PermissionError, match="no usable credentials"):
        open_storage(place()).write_file("x", [b"1"])
