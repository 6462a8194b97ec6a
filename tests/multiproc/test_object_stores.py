"""Checkpoints in object stores: a kill at every request, and two real ranks on a real S3 server."""

from __future__ import annotations

import os
import signal
import uuid
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

import dist_toolkit as dtk
from dist_toolkit.checkpoint import Checkpointer
from dist_toolkit.checkpoint.layout import MANIFEST
from dist_toolkit.checkpoint.manifest import decode
from dist_toolkit.errors import PeerError, StorageNotShared
from dist_toolkit.storage import Storage, objects, open_storage, staged
from dist_toolkit.testing import RanksFailed, run_ranks
from tests.multiproc.saving import fill, restored, save_values, tiny, value_of, with_checkpointer
from tests.s3_server import BUCKET, S3Server

pytestmark = [pytest.mark.multiproc, pytest.mark.usefixtures("s3_process")]

CHANGES = ("pipe_file", "put_file", "cp_file", "rm_file")
LIVES = {  # what is saved, what the killed program then restores and saves, and how many are kept
    "next step": ([(1, 10.0)], 1, (2, 20.0), 1),
    "same step again": ([(1, 10.0)], 1, (1, 11.0), 1),
    "went back": ([(1, 10.0), (5, 50.0)], 1, (2, 20.0), 2),
}


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it, and what it leaves in the store is what a kill leaves."""


class Mortal:
    """A filesystem that dies with request number `at` that changes it: before it, or after it was carried out."""

    def __init__(self, filesystem: Any, at: int | None, after: bool) -> None:
        self._filesystem, self._at, self._after = filesystem, at, after
        self.count, self._dead = 0, False

    def __getattr__(self, name: str) -> Any:
        original = getattr(self._filesystem, name)
        return partial(self._call, original) if name in CHANGES else original

    def _call(self, original: Any, *args: Any, **kwargs: Any) -> Any:
        at, self.count = self.count, self.count + 1
        self._dead = self._dead or at == self._at
        if self._dead and not (at == self._at and self._after):
            raise Killed
        original(*args, **kwargs)
        if self._dead:
            raise Killed


def torn_records(root: str) -> list[str]:
    """Records, also of what is set aside, that name a file which is not there."""
    storage = open_storage(root)
    names = list(storage.files())
    torn = []
    for name in names:
        folder, _, file = name.partition("/")
        if file == MANIFEST:
            wanted = decode(storage.read_bytes(name), name).files
            torn += [f"{name} names {one}" for one in wanted if f"{folder}/{one}" not in names]
    return torn


def kill_at_every_request(
    first: list[tuple[int, float]], restore: int, second: tuple[int, float], keep: int
) -> tuple[int, list[str]]:
    """Save `second` after `first`, killed at each request in turn; the number of requests, and what went wrong."""
    wrong: list[str] = []
    seen = set()
    with dtk.init(seed=0) as rt:
        engine = rt.setup(tiny, partial(torch.optim.AdamW, lr=0.1))

        def program(root: str, keep_last: int = 1) -> Checkpointer:
            objects._claims.clear()  # another program: that of before is dead
            return rt.checkpointer(root, engine=engine, keep_last=keep_last)

        def save(ckpt: Checkpointer, step: int, value: float) -> None:
            fill(engine, value)
            ckpt.save(step)

        def attempt(root: str, at: int | None, after: bool) -> int:
            ckpt = program(root, keep)
            for step, value in first:
                save(ckpt, step, value)
            ckpt.restore(restore)
            storage: Any = ckpt._storage
            mortal = storage._fs = Mortal(storage._fs, at, after)
            try:
                save(ckpt, *second)
            except Killed:
                return -1
            return mortal.count

        requests = attempt(f"memory://{uuid.uuid4().hex}", None, False)
        for at in range(requests):
            for after in (False, True):
                root = f"memory://{uuid.uuid4().hex}"
                where = f"killed {'after' if after else 'before'} request {at}"
                if attempt(root, at, after) != -1:
                    wrong.append(f"{where}: not killed")
                wrong += [f"{where}: {torn}" for torn in torn_records(root)]
                fill(engine, 77.0)
                ckpt = program(root)
                step = ckpt.restore()
                found = (step, None if step is None else value_of(engine))
                seen.add(found)
                if found not in (first[-1], second):
                    wrong.append(f"{where}: restored {found}")
                save(ckpt, 6, 60.0)
                left = [name for name in open_storage(root).files() if ".aside/" not in name]
                if [name.rpartition("-")[0] for name in left] != ["", "step", "step-00000006/rank-00000"]:
                    wrong.append(f"{where}: the next save left {left}")
                if program(root).restore() != 6 or value_of(engine) != 60.0:
                    wrong.append(f"{where}: the next save is not there")
        if seen != {first[-1], second}:
            wrong.append(f"some kills come before the commit and some after: {seen}")
    objects._claims.clear()
    return requests, wrong


@pytest.mark.parametrize("life", LIVES.values(), ids=LIVES.keys())
def test_kill_at_every_request_of_a_save(life: tuple[Any, ...]) -> None:
    """What is left is an old checkpoint or the new one, whole, and then the next save works and cleans up."""
    [(requests, wrong)] = run_ranks(kill_at_every_request, 1, *life)
    assert requests >= 5
    assert wrong == []


def whole_life(endpoint: str, root: str) -> dict[str, Any]:
    """Saves, failures and restores on two ranks; what each gave."""
    server = S3Server(endpoint)
    storage: Storage = open_storage(root)
    gave: dict[str, Any] = {}

    def body(engine: dtk.Engine, ckpt: Checkpointer, rt: dtk.Runtime) -> None:
        def on_main(call: Any, *args: Any) -> None:
            rt.group.barrier()
            if rt.world.is_main:
                call(*args)
            rt.group.barrier()

        def save(step: int, value: float) -> str:
            fill(engine, value)
            try:
                ckpt.save(step)
            except PeerError as error:
                return str(error)
            return "saved"

        def restore() -> tuple[int | None, float]:
            fill(engine, 77.0)
            return ckpt.restore(), value_of(engine)

        gave["saves"] = [save(1, 10.0), save(2, 20.0), save(3, 30.0), save(3, 31.0)]
        gave["restored"] = restore()
        gave["names"] = storage.list(), [len(storage.list(f"step-0000000{step}")) for step in (2, 3)]
        on_main(server.fail, "PUT", "rank-00001", 503, 4, "SlowDown")
        gave["slow"] = save(4, 40.0), restore()
        on_main(server.fail, "PUT", "rank-00001", 503, 1000, "SlowDown")
        gave["down"] = save(5, 50.0)
        on_main(server.reset)
        gave["after down"] = restore()
        on_main(server.fail, "PUT", "rank-00001", 403, 1000, "AccessDenied")
        gave["refused"] = save(5, 50.0)
        gave["asked"] = sum("PUT" in line and "step-00000005/rank-00001" in line for line in server.requests())
        on_main(server.reset)
        on_main(server.fail, "PUT", "manifest.json", 500, 1000, "InternalError")
        gave["no record"] = save(4, 41.0)
        on_main(server.reset)
        gave["after no record"] = restore()
        gave["went back"] = ckpt.restore(3), save(4, 42.0), restore()
        try:
            rt.checkpointer("memory://run", engine=engine).save(1)
        except StorageNotShared as error:
            gave["memory"] = sorted(error.hosts)
        on_main(storage.replace_file, ".lock", b"process 7 on elsewhere\n0123\n")
        gave["taken"] = save(6, 60.0)
        gave["after taken"] = restore()

    with_checkpointer(root, body, keep_last=2)
    return gave


def test_two_ranks_on_s3(s3: S3Server) -> None:
    root = f"s3://{BUCKET}/{uuid.uuid4().hex}"
    env = {"DTK_STORAGE_ATTEMPTS": "3"}
    one, two = run_ranks(whole_life, 2, s3.endpoint, root, env=env)
    assert one == two, "both ranks saw the same"
    assert one["saves"] == ["saved"] * 4
    assert one["restored"] == (3, 31.0)
    assert one["names"] == ([".lock", "step-00000002", "step-00000003"], [3, 3])
    assert one["slow"] == ("saved", (4, 40.0))
    assert "writing checkpoint 5 failed on 1 rank(s): rank 1: " in one["down"]
    assert "given up after 3 attempt(s)" in one["down"]
    assert one["after down"] == (4, 40.0)
    assert f"rank 1: PermissionError: writing {root}/step-00000005/rank-00001" in one["refused"]
    assert one["asked"] == 1
    assert "committing checkpoint 4 failed on 1 rank(s): rank 0: " in one["no record"]
    assert one["after no record"] == (4, 40.0), "an older one of the same step is not lost"
    assert one["went back"] == (3, "saved", (4, 42.0))
    assert one["memory"] == [1]
    assert "taken over by process 7 on elsewhere" in one["taken"]
    assert one["after taken"] == (4, 42.0)


class Large:
    """A state that each rank writes a good part of."""

    def __init__(self, value: int) -> None:
        self.tensors = [torch.full((8 << 20,), value, dtype=torch.uint8) for _ in range(4)]

    def state_dict(self) -> dict[str, Any]:
        return {str(i): tensor for i, tensor in enumerate(self.tensors)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.tensors = list(state.values())


def save_large(root: str, step: int, killed_rank: int | None) -> list[int]:
    """Restore, and save `step` in uploads of several parts; `killed_rank` dies between two parts. What was restored."""
    import s3fs.core

    staged._SMALL = 1 << 20
    s3fs.core.calculate_chunksize = lambda size, chunksize=None: 5 << 20
    original = s3fs.S3FileSystem._call_s3

    async def call(self: Any, method: str, *args: Any, **kwargs: Any) -> Any:
        if method == "upload_part" and kwargs.get("PartNumber") == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return await original(self, method, *args, **kwargs)

    with dtk.init(seed=0) as rt:
        if rt.world.rank == killed_rank:
            s3fs.S3FileSystem._call_s3 = call
        engine = rt.setup(tiny, partial(torch.optim.AdamW, lr=0.1))
        large = Large(step)
        ckpt = rt.checkpointer(root, engine=engine, state={"large": large})
        found = ckpt.restore()
        values = sorted({int(tensor[0]) for tensor in large.tensors} | {int(tensor[-1]) for tensor in large.tensors})
        large.tensors = Large(step).tensors
        ckpt.save(step)
    return [-1 if found is None else found, *values]


@pytest.mark.slow
def test_kill_between_two_parts_of_an_upload(s3: S3Server) -> None:
    root = f"s3://{BUCKET}/{uuid.uuid4().hex}"
    assert run_ranks(save_large, 2, root, 1, None) == [[-1, 1]] * 2
    with pytest.raises(RanksFailed) as failure:
        run_ranks(save_large, 2, root, 2, 1)
    assert failure.value.outcomes[1].exitcode == -signal.SIGKILL
    assert any("partNumber=" in request for request in s3.requests())
    assert run_ranks(save_large, 2, root, 3, None) == [[1, 1]] * 2
    names = list(open_storage(root).files())
    assert [name.partition("-0000")[0] for name in names] == ["step"] * 6
    assert {name.partition("/")[0] for name in names} == {"step-00000001", "step-00000003"}


def test_a_run_is_moved_between_a_directory_and_a_store(s3: S3Server, tmp_path: Path) -> None:
    """The files are the same, so a copy by any tool is a checkpoint."""
    root = f"s3://{BUCKET}/{uuid.uuid4().hex}"
    run_ranks(save_values, 1, str(tmp_path / "a"), [(1, 10.0)])
    _copy(str(tmp_path / "a"), root)
    assert run_ranks(restore_and_save, 1, root) == [(1, 10.0)]
    _copy(root, str(tmp_path / "b"))
    assert run_ranks(restored, 1, str(tmp_path / "b")) == [(2, 20.0)]


def restore_and_save(root: str) -> tuple[int | None, float | None]:
    found = restored(root)
    save_values(root, [(2, 20.0)])
    return found


def _copy(source: str, target: str) -> None:
    a, b = open_storage(source), open_storage(target)
    for name in a.files():
        if b.renames:
            Path(b.root, name).parent.mkdir(parents=True, exist_ok=True)
        b.write_file(name, [a.read_bytes(name)])
