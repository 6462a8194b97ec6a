"""The kind of file system that a folder is on, and whether other hosts can have the same one."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

_OF_ONE_HOST = {
    *("ext2", "ext3", "ext4", "xfs", "btrfs", "bcachefs", "zfs", "f2fs", "jfs", "reiserfs", "vfat", "exfat", "fuseblk"),
    *("tmpfs", "ramfs", "devtmpfs", "rootfs", "hugetlbfs", "overlay", "squashfs"),
}


def kind_of(folder: Path, mounts: Iterable[str]) -> str:
    """The type of the file system of an absolute path, by the lines of /proc/mounts; '' if they do not tell."""
    best, kind = -1, ""
    for line in mounts:
        parts = line.split()
        if len(parts) < 3:
            continue
        point = Path(parts[1].replace("\\040", " ").replace("\\011", "\t"))
        if (folder == point or point in folder.parents) and len(point.parts) >= best:
            best, kind = len(point.parts), parts[2]
    return kind


def of_one_host(folder: Path) -> str:
    """The type of the folder's file system, if it is one that other hosts do not share; '' if not, or not known."""
    try:
        with open("/proc/mounts", encoding="utf-8", errors="replace") as file:
            kind = kind_of(folder.resolve(), file)
    except OSError:
        return ""
    return kind if is_of_one_host(kind) else ""


def is_of_one_host(kind: str) -> bool:
    """Whether other hosts cannot have a file system of this type, too."""
    return kind in _OF_ONE_HOST
