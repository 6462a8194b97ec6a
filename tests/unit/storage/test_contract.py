"""What every storage does: a directory, file://, memory://, and s3:// on a real server."""

from __future__ import annotations

import errno
import random
import uuid
from pathlib import Path

import pytest

from dist_toolkit.storage import Storage, open_storage
from tests.s3_server import BUCKET, S3Server

pytestmark = pytest.mark.usefixtures("s3_process")


@pytest.fixture(params=["path", "file", "memory", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    """An empty place."""
    if request.param == "s3":
        request.getfixturevalue("s3")
    places = {
        "path": str(tmp_path / "run [1]"),
        "file": f"file://{tmp_path}/run%20%5B1%5D",
        "memory": f"memory://run [1]/{uuid.uuid4().hex}",
        "s3": f"s3://{BUCKET}/run [1]/{uuid.uuid4().hex}",
    }
    made = open_storage(places[request.param])
    if made.renames:
        made.make_dir("a")
    return made


def test_what_was_written_is_read(storage: Storage) -> None:
    data = random.Random(1).randbytes(100_000)
    view = memoryview(data)
    assert storage.write_file("a/one.bin", [view[:10], b"", view[10:70_000], bytes(view[70_000:])]) == len(data)
    assert storage.read_bytes("a/one.bin") == data
    with storage.open("a/one.bin") as reader:
        assert reader.size == len(data)
        for begin, end in ((0, len(data)), (99_000, 100_000), (5, 6), (7, 7)):
            found = bytearray(end - begin)
            reader.read_into(begin, memoryview(found))
            assert found == data[begin:end]
        with pytest.raises(EOFError):
            reader.read_into(99_999, memoryview(bytearray(2)))


def test_an_empty_file_is_a_file(storage: Storage) -> None:
    assert storage.write_file("a/empty", []) == 0
    assert storage.read_bytes("a/empty") == b""
    with storage.open("a/empty") as reader:
        assert reader.size == 0
        reader.read_into(0, memoryview(bytearray()))


def test_a_file_over_the_limit_is_not_read(storage: Storage) -> None:
    storage.write_file("a/one", [b"x" * 100])
    assert storage.read_bytes("a/one", 100) == b"x" * 100
    with pytest.raises(OSError, match="more than 99") as caught:
        storage.read_bytes("a/one", 99)
    assert caught.value.errno == errno.EFBIG
    with pytest.raises(FileNotFoundError):
        storage.read_bytes("a/nothing", 99)


def test_what_is_not_there(storage: Storage) -> None:
    with pytest.raises(FileNotFoundError):
        storage.read_bytes("a/nothing")
    with pytest.raises(FileNotFoundError):
        storage.open("a/nothing")
    assert storage.list("nothing") == list(storage.files("nothing")) == []
    storage.remove_tree("nothing")


def test_names_are_listed_by_one_level_or_by_all(storage: Storage) -> None:
    for name in ("a/two", "a/one", "a/one.more", "top"):
        storage.write_file(name, [b"x"])
    assert storage.list() == ["a", "top"]
    assert storage.list("a") == ["one", "one.more", "two"]
    assert list(storage.files()) == ["a/one", "a/one.more", "a/two", "top"]
    assert list(storage.files("a")) == ["one", "one.more", "two"]
    storage.remove_file("a/one")
    assert storage.list("a") == ["one.more", "two"]


def test_a_tree_is_removed_and_not_its_namesakes(storage: Storage) -> None:
    if storage.renames:
        storage.make_dir("step-1")
        storage.make_dir("step-10")
    for name in ("step-1/x", "step-1/y", "step-10/x"):
        storage.write_file(name, [b"x"])
    storage.remove_tree("step-1")
    assert list(storage.files()) == ["step-10/x"]


def test_a_file_is_replaced_and_copied(storage: Storage) -> None:
    storage.replace_file("a/record", b"first")
    storage.copy_file("a/record", "a/copy")
    storage.replace_file("a/record", b"the second")
    assert storage.read_bytes("a/record") == b"the second"
    assert storage.read_bytes("a/copy") == b"first"
    assert storage.list("a") == ["copy", "record"]


def test_a_place_is_claimed_and_released(storage: Storage) -> None:
    assert storage.claim("the first", 0.0) is None
    assert storage.taken_by() is None
    assert storage.claim("the same program", 0.0, take_over=False) is None
    storage.release()
    assert storage.read_bytes(".lock").startswith(b"the first")
    storage.release()
    storage.release()
    assert ".lock" not in storage.list()


def test_a_large_file_is_staged_on_the_disk_and_sent_in_parts(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    s3fs_core = pytest.importorskip("s3fs.core")
    monkeypatch.setattr(s3fs_core, "calculate_chunksize", lambda size, chunksize=None: 5 << 20)
    storage = open_storage(f"s3://{BUCKET}/{uuid.uuid4().hex}")
    data = random.Random(2).randbytes(17 << 20)
    s3.fail("PUT", "partNumber=2", 503, 1, "SlowDown")
    assert storage.write_file("large", [memoryview(data)[: 9 << 20], memoryview(data)[9 << 20 :]]) == len(data)
    assert sum("partNumber=" in request for request in s3.requests()) == 5
    s3.reset()
    assert storage.read_bytes("large") == data
    with storage.open("large") as reader:
        found = bytearray(len(data))
        reader.read_into(0, memoryview(found))
    assert found == data


def test_many_small_reads_are_few_requests(s3: S3Server) -> None:
    storage = open_storage(f"s3://{BUCKET}/{uuid.uuid4().hex}")
    data = random.Random(3).randbytes(12 << 20)
    storage.write_file("tensors", [data])
    s3.reset()
    with storage.open("tensors") as reader:
        for begin in range(0, len(data), 10_000):
            found = bytearray(min(9_000, len(data) - begin))
            reader.read_into(begin, memoryview(found))
            assert found == data[begin : begin + len(found)]
    assert len([request for request in s3.requests() if request.startswith("GET")]) <= 6  # 1, 2, 4, 8 MiB


def test_the_generators_of_a_run_are_left_alone(s3: S3Server) -> None:
    random.seed(1)
    before = random.getstate()
    storage = open_storage(f"s3://{BUCKET}/{uuid.uuid4().hex}")
    s3.fail("PUT", "one", 503, 3, "SlowDown")
    storage.write_file("one", [b"x"])
    storage.copy_file("one", "two")
    storage.remove_tree("")
    assert random.getstate() == before
