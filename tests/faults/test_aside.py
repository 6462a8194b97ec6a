"""After a commit: what cannot be cleared away is a warning. What a run has left behind is kept, in bounded number."""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from pathlib import Path
from typing import Any

import pytest

from dist_toolkit.checkpoint.aside import NOTE, set_aside
from dist_toolkit.checkpoint.layout import aside_dir, aside_number, parse_dir
from dist_toolkit.errors import CheckpointNotFound, PeerError
from dist_toolkit.storage import open_storage
from tests.faults.program import Program, found, results, run
from tests.faults.storage import Fault


def restored(root: Path) -> Any:
    return found(root, size=50)


def names(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir() if path.name != ".lock")


def prepare(root: Path, *pairs: tuple[int, float]) -> None:
    results(root, lambda program: [program.save(*pair) for pair in pairs], size=50)


def failing(root: Path, operation: str, number: int, *pairs: tuple[int, float]) -> list[str]:
    """Save `pairs` in one program, whose first such operation fails with this error; the names after the first save."""

    def body(program: Program) -> list[str]:
        after: list[str] = []
        for pair in pairs:
            program.save(*pair)
            after = after or names(root)
        return after

    copy = root.with_name("count")
    shutil.copytree(root, copy)
    _, (storage,) = run(copy, body, size=50)
    shutil.rmtree(copy)
    fault = Fault(storage.visited.index(operation), "before", number)
    [end], (storage,) = run(root, body, faults={0: fault}, size=50)
    assert storage.fired
    if end.error is not None:
        raise end.error
    return end.value


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO])
def test_a_replaced_one_that_cannot_be_removed_is_a_warning(
    tmp_path: Path, number: int, caplog: pytest.LogCaptureFixture
) -> None:
    prepare(root := tmp_path / "run", (1, 10.0))
    after = failing(root, "remove all of step-00000001.old", number, (1, 11.0), (2, 20.0))
    assert after == ["step-00000001", "step-00000001.old"]
    assert "step-00000001.old stays behind, until a later save clears it away: " in caplog.text
    assert os.strerror(number) in caplog.text
    assert names(root) == ["step-00000001", "step-00000002"], "the next save has cleared it away"
    shutil.rmtree(root / "step-00000002")
    assert restored(root) == (1, 11.0)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO])
def test_later_ones_that_cannot_step_aside_count_as_if_they_had(
    tmp_path: Path, number: int, caplog: pytest.LogCaptureFixture
) -> None:
    prepare(root := tmp_path / "run", (3, 30.0), (4, 40.0))
    rename = "rename step-00000004 to step-00000004.aside"
    after = failing(root, rename, number, (2, 20.0))
    assert "later steps than 2 count as set aside" in caplog.text
    assert after == names(root) == [NOTE, "step-00000002", "step-00000003", "step-00000004"]
    caplog.clear()
    assert restored(root) == (2, 20.0)
    assert "has no commit record" not in caplog.text
    with pytest.raises(CheckpointNotFound):
        results(root, lambda program: program.restore(4), size=50)
    with pytest.raises(PeerError, match="opening checkpoint 5"):
        failing(root, rename, number, (5, 50.0))  # nothing else may be saved before: 4 would count again one day
    prepare(root, (5, 50.0))
    assert names(root) == ["step-00000002", "step-00000003.aside", "step-00000004.aside", "step-00000005"]


@pytest.mark.parametrize("note", [b"", b"{", b"[1]", b'{"step": 2}', b'{"step": [], "token": 1, "left": {}}'])
def test_a_note_that_is_none_hides_nothing(tmp_path: Path, note: bytes) -> None:
    prepare(tmp_path, (3, 30.0))
    (tmp_path / NOTE).write_bytes(note)
    assert restored(tmp_path) == (3, 30.0)
    prepare(tmp_path, (4, 40.0))
    assert names(tmp_path) == ["step-00000003", "step-00000004"]


def test_one_that_was_put_back_by_hand_counts_again(tmp_path: Path) -> None:
    prepare(tmp_path, (3, 30.0))
    prepare(tmp_path, (2, 20.0))
    (tmp_path / "step-00000003.aside").rename(tmp_path / "step-00000003")
    assert restored(tmp_path) == (3, 30.0)
    prepare(tmp_path, (4, 40.0))
    assert names(tmp_path) == ["step-00000002", "step-00000003", "step-00000004"]


def test_the_newest_two_of_a_step_stay_set_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """None is deleted without a word, and none for a folder that is damaged."""
    for value in (30.0, 31.0, 32.0, 33.0):
        prepare(tmp_path, (3, value))
        prepare(tmp_path, (1, 10.0))
    assert names(tmp_path) == ["step-00000001", "step-00000003.aside.3", "step-00000003.aside.4"]
    assert "step-00000003.aside was deleted: 2 newer ones of step 3 are set aside" in caplog.text
    (tmp_path / "step-00000001").rename(tmp_path / "away")
    for number, value in ((3, 32.0), (4, 33.0)):
        (tmp_path / f"step-00000003.aside.{number}").rename(tmp_path / "step-00000003")
        assert restored(tmp_path) == (3, value)
        (tmp_path / "step-00000003").rename(tmp_path / f"step-00000003.aside.{number}")


def test_a_copy_in_an_object_store_is_not_made_twice() -> None:
    """The program was killed after it had copied a checkpoint, before it deleted the original."""
    storage = open_storage(f"memory://{uuid.uuid4().hex}")
    for name in ("rank-00000-0.safetensors", "manifest.json"):
        storage.write_file(f"step-00000003/{name}", [b"x"])
        storage.write_file(f"step-00000003.aside/{name}", [b"x"])
    from dist_toolkit.checkpoint.manifest import digest

    assert set_aside(storage, "step-00000003", 3, digest(b"x")) == "step-00000003.aside"
    assert storage.list() == ["step-00000003.aside"]
    storage.write_file("step-00000003/manifest.json", [b"y"])
    assert set_aside(storage, "step-00000003", 3, digest(b"y")) == "step-00000003.aside.2"
    assert storage.list() == ["step-00000003.aside", "step-00000003.aside.2"]


def test_names() -> None:
    for number in (1, 2, 9, 10, 123456):
        assert parse_dir(aside_dir(7, number)) == (7, ".aside")
        assert aside_number(aside_dir(7, number), 7) == number
        assert aside_number(aside_dir(7, number), 8) == 0
    for name in ("step-00000007", "step-00000007.old", "step-00000007.aside.1", "step-00000007.aside.02"):
        assert aside_number(name, 7) == 0
    assert parse_dir("step-00000007.aside.1") is None
    assert os.path.basename(NOTE).startswith(".")
