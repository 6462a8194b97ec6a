"""Which file system a folder is on."""

from pathlib import Path

import pytest
from dtk_launch.mounts import kind_of

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
