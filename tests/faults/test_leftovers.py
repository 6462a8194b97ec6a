"""What killed programs, people and copies leave in a directory of checkpoints: none of it is loaded or in the way."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from dist_toolkit.checkpoint.catalog import committed_checkpoints
from dist_toolkit.checkpoint.retention import Retention
from dist_toolkit.storage import LocalStorage
from tests.faults.program import found, results

ONE = Retention(keep_last=1)


def save(root: Path, *pairs: tuple[int, float], **options: object) -> None:
    results(root, lambda program: [program.save(*pair) for pair in pairs], size=50, **options)


def restored(root: Path) -> tuple[int, float] | None:
    return found(root, size=50)


def names(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir())


def folder(path: Path) -> None:
    path.mkdir()
    (path / "rank-00000.safetensors").write_bytes(b"half")
    (path / "attempt").write_text("another run")
    (path / "deeper").mkdir()


def file(path: Path) -> None:
    path.write_bytes(b"half")


def link(path: Path) -> None:
    """To a directory of somebody's."""
    target = path.parent.parent / "precious"
    target.mkdir(exist_ok=True)
    (target / "file").write_text("precious")
    path.symlink_to(target)


def dangling(path: Path) -> None:
    path.symlink_to(path.parent / "nowhere")


@pytest.mark.parametrize("make", [folder, file, link, dangling])
def test_anything_in_the_place_of_a_leftover_is_cleared(tmp_path: Path, make: Callable[[Path], None]) -> None:
    """Of every kind at once, and of the step that is saved, the one that goes, and another."""
    root = tmp_path / "ckpt"
    save(root, (1, 10.0))
    for step, suffix in itertools.product((1, 2, 7), (".tmp", ".del", ".old")):
        make(root / f"step-{step:08d}{suffix}")
    assert restored(root) == (1, 10.0)
    save(root, (2, 20.0), retention=ONE)
    assert restored(root) == (2, 20.0)
    assert [name for name in names(root) if name != "step-00000007"] == ["step-00000002"]
    assert make is not link or (tmp_path / "precious" / "file").read_text() == "precious"


@pytest.mark.parametrize(
    "present", [c for n in range(5) for c in itertools.combinations(("tmp", "del", "old", "aside"), n)]
)
def test_a_checkpoint_with_leftovers_of_its_own_step(tmp_path: Path, present: tuple[str, ...]) -> None:
    """In every combination, each a whole checkpoint of other numbers: the committed counts, then the replaced one."""
    save(tmp_path, (1, 10.0), (2, 20.0))
    for number, suffix in enumerate(present):
        save(tmp_path / "other", (2, 30.0 + number))
        (tmp_path / "other" / "step-00000002").rename(tmp_path / f"step-00000002.{suffix}")
    shutil.rmtree(tmp_path / "other", ignore_errors=True)
    assert restored(tmp_path) == (2, 20.0)
    (tmp_path / "step-00000002").rename(tmp_path / "away")
    expected = (2, 30.0 + present.index("old")) if "old" in present else (1, 10.0)
    assert restored(tmp_path) == expected
    save(tmp_path, (3, 50.0))
    assert restored(tmp_path) == (3, 50.0)
    kept = {"step-00000001", "step-00000003", "away"}
    kept |= {"step-00000002"} if "old" in present else set()
    kept |= {"step-00000002.aside"} if "aside" in present else set()
    assert set(names(tmp_path)) == kept
    shutil.rmtree(tmp_path / "step-00000003")
    assert restored(tmp_path) == expected, "the replaced one was put back"


def test_a_deletion_that_was_killed_is_no_obstacle_to_the_next(tmp_path: Path) -> None:
    from dist_toolkit.checkpoint.catalog import delete

    save(tmp_path, (1, 10.0), (2, 20.0))
    folder(tmp_path / "step-00000001.del")
    storage = LocalStorage(tmp_path)
    delete(storage, committed_checkpoints(storage)[1])
    assert names(tmp_path) == ["step-00000002"]


@pytest.mark.parametrize("damage", ["no record", "a damaged record", "a record of another step"])
def test_a_replaced_checkpoint_stays_until_its_successor_is_whole(tmp_path: Path, damage: str) -> None:
    """A directory of the right name is no successor without a record of its own."""
    save(tmp_path, (1, 10.0), (2, 20.0))
    (tmp_path / "step-00000002").rename(tmp_path / "step-00000002.old")
    shutil.copytree(tmp_path / "step-00000001", tmp_path / "step-00000002")
    record = tmp_path / "step-00000002" / "manifest.json"
    if damage == "no record":
        record.unlink()
    elif damage == "a damaged record":
        os.truncate(record, 100)
    assert restored(tmp_path) == (2, 20.0)
    save(tmp_path, (3, 30.0))
    shutil.rmtree(tmp_path / "step-00000003")
    assert restored(tmp_path) == (2, 20.0)
    save(tmp_path, (2, 22.0))
    assert restored(tmp_path) == (2, 22.0)


def test_a_copied_record_does_not_hide_the_checkpoint_that_it_is_of(tmp_path: Path) -> None:
    save(tmp_path, (1, 10.0), (2, 20.0))
    shutil.copy(tmp_path / "step-00000001" / "manifest.json", tmp_path / "step-00000002")
    assert restored(tmp_path) == (1, 10.0)
    save(tmp_path, (2, 21.0))
    assert restored(tmp_path) == (2, 21.0)


@pytest.mark.parametrize("kind", ["directory", "loop", "socket-like", "pipe", "device", "sparse"])
def test_a_record_that_is_no_file_is_damage(tmp_path: Path, kind: str) -> None:
    save(tmp_path, (1, 10.0), (2, 20.0))
    record = tmp_path / "step-00000002" / "manifest.json"
    record.unlink()
    if kind == "directory":
        record.mkdir()
    elif kind == "pipe":
        os.mkfifo(record)
    elif kind == "device":
        record.symlink_to("/dev/zero")
    elif kind == "sparse":
        record.touch()
        os.truncate(record, 1 << 40)
    elif kind == "loop":
        record.symlink_to(record)
    else:
        record.symlink_to(tmp_path / "step-00000001" / "manifest.json" / "below a file")
    assert restored(tmp_path) == (1, 10.0)
    save(tmp_path, (3, 30.0), retention=ONE)
    assert restored(tmp_path) == (3, 30.0)
