"""Which file system a folder is on."""

from pathlib import Path

import pytest
from dtk_launch.mounts import is_of_one_host, kind_of, of_one_host

MOUNTS = [
    "overlay / overlay rw 0 0",
    "home:/vol /home nfs4 rw 0 0",
    "/dev/sda1 /home/ada/local\\040disk ext4 rw 0 0",
    "nonsense",
    "fs /scratch lustre rw 0 0",
]


@pytest.mark.parametrize(
    ("folder", "kind"),
    [
        ("/home/ada/runs", "nfs4"),
        ("/home", "nfs4"),
        ("/homes/ada", "overlay"),
        ("/home/ada/local disk/run", "ext4"),
        ("/scratch/x", "lustre"),
    ],
)
def test_the_innermost_mount_counts(folder, kind):
    assert kind_of(Path(folder), MOUNTS) == kind
    assert kind_of(Path(folder), []) == ""


def test_a_folder_that_is_reached_by_a_link(tmp_path):
    """Of a link the file system counts that it leads to; a folder need not be there."""
    shm = Path("/dev/shm")
    if of_one_host(shm) != "tmpfs" or of_one_host(tmp_path) == "tmpfs":
        pytest.skip("needs a /dev/shm of its own")
    (tmp_path / "fast").symlink_to(shm)
    assert of_one_host(tmp_path / "fast/not/there") == "tmpfs"


@pytest.mark.parametrize(("kind", "one_host"), [("tmpfs", True), ("devtmpfs", True), ("nfs4", False), ("", False)])
def test_file_systems_of_one_host(kind, one_host):
    assert is_of_one_host(kind) is one_host
