"""The folder of the run directories: file systems that cannot rename or sync, are full, in memory, or not shared."""

import errno
import os
from dataclasses import replace

import pytest
from dtk_launch.doctor import filesystem
from dtk_launch.doctor.filesystem import Filesystem, judge, judge_shared
from dtk_launch.doctor.place import place
from dtk_launch.errors import PlanError

GOOD = Filesystem("/lustre/runs", "lustre", False, free=1 << 40, total=2 << 40, files_free=10**6, sync_seconds=0.002)


def fails(number):
    def call(*_):
        raise OSError(number, os.strerror(number))

    return call


def levels(facts):
    return {finding.what: finding.level for finding in judge(facts)}


def test_a_good_folder_is_one_line_and_nothing_is_left(tmp_path):
    facts = filesystem.probe(tmp_path)
    assert (facts.error, facts.rename, facts.sync, facts.path) == ("", "", "", str(tmp_path))
    assert abs(facts.ahead) < 1
    assert facts.total >= facts.free > 0
    assert list(tmp_path.iterdir()) == []
    assert levels(GOOD) == {"lustre, 1 TiB free, rename and fsync work (2.0 ms)": "ok"}


def test_rename_or_fsync_that_does_not_work(tmp_path):
    no_rename = filesystem.probe(tmp_path, replace=fails(errno.EPERM))
    assert no_rename.rename == "Operation not permitted"
    assert filesystem.probe(tmp_path, replace=lambda *_: None).rename == "the old file is still there after it"
    no_sync = filesystem.probe(tmp_path, sync=fails(errno.EINVAL))
    assert (no_sync.sync, no_sync.rename) == ("Invalid argument", "")
    for facts, said in ((no_rename, "rename fails in"), (no_sync, "fsync fails in")):
        assert [what for what, level in levels(facts).items() if level == "problem" and said in what]


@pytest.mark.skipif(not os.path.exists("/proc/self/fdinfo"), reason="needs Linux")
def test_a_folder_that_cannot_be_written():
    facts = filesystem.probe(filesystem.Path("/proc/self/fdinfo"))
    assert facts.error
    assert "cannot be written" in next(iter(levels(facts)))


@pytest.mark.parametrize(
    ("changes", "level", "said"),
    [
        ({"error": "Read-only file system"}, "problem", "cannot be written: Read-only file system"),
        ({"sync_seconds": 3.2}, "warning", "fsync of a few bytes took 3.2 s"),
        ({"kind": "tmpfs"}, "warning", "in memory (tmpfs)"),
        ({"kind": "overlay"}, "note", "a container's own layer"),
        ({"noexec": True}, "warning", "/lustre/runs is mounted noexec"),
        ({"temp": "/tmp"}, "warning", "/tmp is mounted noexec"),
        ({"free": 5 << 30}, "warning", "5 GiB of 2 TiB are free"),
        ({"free": 1 << 20}, "problem", "1 MiB of 2 TiB are free"),
        ({"files_free": 3}, "problem", "3 more files"),
    ],
)
def test_folders_with_something(changes, level, said):
    found = list(judge(replace(GOOD, **changes)))
    assert [one for one in found if one.level == level and said in one.what]
    assert all(one.level in (level, "ok") for one in found)


def test_one_folder_on_all_nodes_or_not():
    (same,) = judge_shared("/runs", {"n1": (), "n2": ()})
    assert same.level == "ok"
    (other,) = judge_shared("/runs", {"n1": ("n2",), "n2": ("n1",), "n3": ()})
    assert other.level == "problem"
    assert "n1 does not see what n2 wrote; n2 does not see what n1 wrote" in other.what
    nodes = [f"n{number}" for number in range(100)]
    (many,) = judge_shared("/runs", {node: tuple(n for n in nodes if n != node) for node in nodes})
    assert len(many.what) < 400
    assert "and so on 97 more" in many.what


def test_the_place_leaves_nothing_of_its_own(tmp_path):
    with place(tmp_path / "a/runs") as where:
        assert where.folder.parent == tmp_path / "a/runs"
        assert where.error == ""
        (where.folder / "x").mkdir()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "runs/mine").mkdir(parents=True)
    with place(tmp_path / "runs"):
        pass
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["mine"]


def test_a_place_that_cannot_be_made_and_one_that_is_a_file(tmp_path):
    with place(filesystem.Path("/proc/runs")) as where:
        assert where.error
        assert where.folder.is_dir()
    assert not where.folder.exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(PlanError, match="is a file; pass a folder"), place(tmp_path / "file" / "runs"):
        pass
