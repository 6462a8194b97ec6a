"""The folder of the run directories: can it be written, renamed in, synced, is it the same on all nodes?"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dtk_launch.doctor.findings import Finding, some
from dtk_launch.mounts import kind_of, of_one_host
from dtk_launch.tables import size

CHECK = "filesystem"
_IN_MEMORY = {"tmpfs", "ramfs"}
_LITTLE, _VERY_LITTLE = 10 << 30, 1 << 30
_LITTLE_SHARE = 0.02
_SLOW_SYNC = 0.5  # seconds for a few bytes


@dataclass(frozen=True)
class Filesystem:
    """What was tried in a folder of its own below `path`. Errors are '' where it worked; bytes and seconds."""

    path: str
    kind: str
    """Of file system, as /proc/mounts has it."""
    one_host: bool
    """Whether other hosts cannot have it."""
    error: str = ""
    """Why nothing can be written."""
    rename: str = ""
    sync: str = ""
    sync_seconds: float = 0.0
    free: int = 0
    total: int = 0
    files_free: int | None = None
    """None where the file system does not count them."""
    ahead: float = 0.0
    """Seconds by which the stamps of its files are ahead of this host's clock."""
    temp: str = ""
    """The folder for temporary files, where programs on it cannot be executed (noexec)."""
    noexec: bool = False


def nearest(folder: Path) -> Path:
    """The folder, or the first above it that is there."""
    return next((path for path in (folder, *folder.parents) if path.exists()), Path("/"))


def probe(
    folder: Path, replace: Callable[[str, str], None] = os.replace, sync: Callable[[int], None] = os.fsync
) -> Filesystem:
    """Write, sync, rename and read back in `folder`, which is there. `replace` and `sync`: the system calls."""
    path, mounts = folder.resolve(), _mounts()
    temp = Path(tempfile.gettempdir())
    try:
        status = os.statvfs(path)
    except OSError as error:
        return Filesystem(str(folder), kind_of(path, mounts), bool(of_one_host(path)), error=_words(error))
    tried = _try(path, replace, sync)
    return Filesystem(
        path=str(folder), kind=kind_of(path, mounts), one_host=bool(of_one_host(path)),
        free=status.f_bavail * status.f_frsize, total=status.f_blocks * status.f_frsize,
        files_free=status.f_favail if status.f_files else None, noexec=_noexec(path),
        temp=str(temp) if _noexec(temp) else "", **tried,
    )  # fmt: skip


def _mounts() -> list[str]:
    try:
        return Path("/proc/mounts").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _noexec(path: Path) -> bool:
    with contextlib.suppress(OSError, AttributeError):
        return bool(os.statvfs(path).f_flag & os.ST_NOEXEC)
    return False


def _words(error: OSError) -> str:
    return error.strerror or str(error)


def _try(folder: Path, replace: Callable[[str, str], None], sync: Callable[[int], None]) -> dict[str, Any]:
    """The fields of Filesystem that have to be tried."""
    new, old = folder / f"try-{os.getpid()}.tmp", folder / f"try-{os.getpid()}"
    said: dict[str, Any] = {}
    try:
        old.write_bytes(b"old")
        with open(new, "wb") as file:
            file.write(b"new")
            file.flush()
            said |= _sync(file.fileno(), sync)
            before = time.time()
            os.utime(file.fileno())  # the server's clock, where it is a network's
            stamp, after = os.fstat(file.fileno()).st_mtime, time.time()
            said["ahead"] = stamp - min(max(stamp, before), after)
    except OSError as error:
        return {"error": _words(error)}
    try:
        replace(str(new), str(old))
        if old.read_bytes() != b"new" or new.exists():
            said["rename"] = "the old file is still there after it"
        else:
            moved = folder / f"{old.name}.dir"
            moved.mkdir()
            replace(str(moved), f"{moved}-2")
            (folder / f"{moved.name}-2").rmdir()
    except OSError as error:
        said["rename"] = _words(error)
    if not said["sync"]:
        said |= _sync_folder(folder, sync)
    for path in (new, old):
        with contextlib.suppress(OSError):
            path.unlink()
    return said


def _sync(descriptor: int, sync: Callable[[int], None]) -> dict[str, Any]:
    began = time.monotonic()
    try:
        sync(descriptor)
    except OSError as error:
        return {"sync": _words(error)}
    return {"sync": "", "sync_seconds": time.monotonic() - began}


def _sync_folder(folder: Path, sync: Callable[[int], None]) -> dict[str, Any]:
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            sync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        return {"sync": f"{_words(error)}, of the folder"}
    return {}


def judge(facts: Filesystem) -> Iterator[Finding]:
    """The run directory's file system, as one node sees it."""
    found = [*_judge_use(facts), *_judge_room(facts)]
    if all(finding.level == "note" for finding in found):
        how = f"rename and fsync work ({facts.sync_seconds * 1000:.1f} ms)"
        found.append(Finding(CHECK, "ok", f"{facts.kind or 'of unknown kind'}, {size(facts.free)} free, {how}"))
    yield from found


def _judge_use(facts: Filesystem) -> Iterator[Finding]:
    if facts.error:
        yield Finding(
            CHECK, "problem", f"{facts.path} cannot be written: {facts.error}",
            "there is no place for logs, records and checkpoints", "pass a --run-dir that you can write to",
        )  # fmt: skip
        return
    if facts.rename:
        yield Finding(
            CHECK, "problem", f"rename fails in {facts.path} ({facts.kind}): {facts.rename}",
            "a checkpoint is complete at the moment it is renamed: none could be saved",
            "choose another file system for the run directory; object stores are for checkpoints by their URL",
        )  # fmt: skip
    if facts.sync:
        yield Finding(
            CHECK, "problem", f"fsync fails in {facts.path} ({facts.kind}): {facts.sync}",
            "a checkpoint could be lost, or be half written, when a node dies",
            "choose another file system for the run directory",
        )  # fmt: skip
    elif facts.sync_seconds > _SLOW_SYNC:
        yield Finding(
            CHECK, "warning", f"fsync of a few bytes took {facts.sync_seconds:.1f} s in {facts.path}",
            "each save waits for several of them", "choose a faster file system, or save less often",
        )  # fmt: skip
    if facts.kind in _IN_MEMORY:
        yield Finding(
            CHECK, "warning", f"{facts.path} is in memory ({facts.kind})",
            "checkpoints are gone when the node reboots, and take the ranks' memory", "choose a folder on a disk",
        )  # fmt: skip
    elif facts.kind == "overlay":
        yield Finding(CHECK, "note", f"{facts.path} is in a container's own layer: it is gone when that is removed")
    for path in ([facts.path] if facts.noexec else []) + ([facts.temp] if facts.temp else []):
        yield Finding(
            CHECK, "warning", f"{path} is mounted noexec",
            "torch.compile and extensions that are built there cannot be loaded; a --snapshot of your code neither",
            "set TMPDIR to another folder" if path == facts.temp else "choose another --run-dir",
        )  # fmt: skip


def _judge_room(facts: Filesystem) -> Iterator[Finding]:
    if facts.error:
        return
    if facts.free < _LITTLE or facts.free < facts.total * _LITTLE_SHARE:
        yield Finding(
            CHECK, "problem" if facts.free < _VERY_LITTLE else "warning",
            f"{size(facts.free)} of {size(facts.total)} are free in {facts.path}",
            "a save that does not fit fails, and the run with it",
            "dtk ckpt prune, or choose another --run-dir",
        )  # fmt: skip
    if facts.files_free is not None and facts.files_free < 1000:
        yield Finding(
            CHECK, "problem", f"{facts.files_free} more files can be made in {facts.path}",
            "each rank writes several: No space left on device", "remove files, or choose another --run-dir",
        )  # fmt: skip


def judge_remote(path: str, node: str, unseen: Mapping[str, tuple[str, ...]]) -> Iterator[Finding]:
    """`unseen`, as for judge_shared, of the only node of a run: the files of this host that it does not see."""
    if others := unseen.get(node):
        yield Finding(
            CHECK, "warning", f"{path} is not the same on {node} and on {some(others)}",
            "what the run writes there stays on the node, checkpoints too: no other host can go on with them",
            "pass a --run-dir on the file system that all nodes share",
        )  # fmt: skip


def judge_shared(path: str, unseen: Mapping[str, tuple[str, ...]]) -> Iterator[Finding]:
    """`unseen`: for each node those whose files it does not see in `path`; () for a node that sees all."""
    blind = {node: others for node, others in unseen.items() if others}
    if not blind:
        yield Finding(CHECK, "ok", f"{path} is the same on all {len(unseen)} nodes")
        return
    words = "; ".join(f"{node} does not see what {some(others)} wrote" for node, others in list(blind.items())[:3])
    words += f"; and so on {len(blind) - 3} more" if len(blind) > 3 else ""
    yield Finding(
        CHECK, "problem", f"{path} is not the same on all nodes: {words}",
        "each rank writes its part of a checkpoint there, and each node what the others have to know: no checkpoint "
        "would be complete", "pass a --run-dir on the file system that all nodes share",
    )  # fmt: skip
