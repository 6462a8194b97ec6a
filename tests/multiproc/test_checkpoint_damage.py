"""Statements 20, 22, 23, 27, 28, 30, 31, 32: damage, refusals and choices, on one and on two ranks."""

from __future__ import annotations

import errno
import json
import logging
import os
import pickle
import random
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import dist_toolkit as dtk
from dist_toolkit import errors
from dist_toolkit.checkpoint import Checkpointer, directory
from dist_toolkit.checkpoint.manifest import decode
from dist_toolkit.checkpoint.save import save_checkpoint
from dist_toolkit.checkpoint.sound import BITS
from dist_toolkit.errors import PeerError, StateMismatch, StorageNotShared
from dist_toolkit.storage import LocalStorage
from dist_toolkit.testing import run_ranks
from tests.multiproc.saving import fill, restored, save_values, tiny, value_of, with_checkpointer
from tests.multiproc.training import Noisy

pytestmark = pytest.mark.multiproc
both = pytest.mark.parametrize("ranks", [1, 2])


class Messages(logging.Handler):
    """Keeps the messages of the package's logger."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        logging.getLogger("dist_toolkit").addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


def flip_and_restore(root: str, folder: str, flips: int) -> list[str]:
    """Flip one bit at a time, in every file of `folder`; each time the older checkpoint must come back."""

    def body(engine: dtk.Engine, ckpt: Checkpointer, rt: dtk.Runtime) -> list[str]:
        choices = random.Random(3)
        undetected = []
        for path in sorted(Path(root, folder).iterdir()):
            good = path.read_bytes()
            rt.group.barrier()
            for _ in range(flips):
                bit = choices.randrange(8 * len(good))
                if rt.world.is_main:
                    bad = bytearray(good)
                    bad[bit // 8] ^= 1 << (bit % 8)
                    path.write_bytes(bad)
                rt.group.barrier()
                messages = Messages()
                step = ckpt.restore()
                named = not rt.world.is_main or any(path.name in text for text in messages.texts)
                if (step, value_of(engine)) != (1, 10.0) or not named:
                    undetected.append(f"{path.name} bit {bit}: step {step}, said {messages.texts}")
            if rt.world.is_main:
                path.write_bytes(good)
            rt.group.barrier()
        assert ckpt.restore() == 2
        return undetected

    result: list[str] = with_checkpointer(root, body)
    return result


@both
def test_any_flipped_bit_is_found_named_and_fallen_back_from(tmp_path: Path, ranks: int) -> None:
    run_ranks(save_values, ranks, str(tmp_path), [(1, 10.0), (2, 20.0)])
    files = sorted(path.name for path in (tmp_path / "step-00000002").iterdir())
    assert files == ["manifest.json", *(f"rank-{rank:05d}.safetensors" for rank in range(ranks))]
    assert run_ranks(flip_and_restore, ranks, str(tmp_path), "step-00000002", 20) == [[]] * ranks


def refused(root: str, kind: str, options: dict[str, Any] | None = None) -> str:
    """The message of the error `kind` that a restore raises; and the model is as it was."""

    def body(engine: dtk.Engine, ckpt: Checkpointer, rt: dtk.Runtime) -> str:
        fill(engine, 77.0)
        with pytest.raises(getattr(errors, kind)) as caught:
            ckpt.restore()
        assert value_of(engine) == 77.0, "a refused restore changes nothing"
        return str(caught.value)

    return str(with_checkpointer(root, body, **(options or {})))


@both
@pytest.mark.parametrize("damage", ["truncate", "remove", "no digest"])
def test_only_checkpoint_damaged_is_an_error_not_a_fresh_start(tmp_path: Path, ranks: int, damage: str) -> None:
    run_ranks(save_values, ranks, str(tmp_path), [(1, 10.0)])
    last = tmp_path / "step-00000001" / f"rank-{ranks - 1:05d}.safetensors"
    if damage == "truncate":
        os.truncate(last, last.stat().st_size - 1)
    elif damage == "remove":
        last.unlink()
    else:
        last = tmp_path / "step-00000001" / "manifest.json"
        manifest = json.loads(last.read_text())
        del manifest["digest"]
        last.write_text(json.dumps(manifest))
    for message in run_ranks(refused, ranks, str(tmp_path), "AllCheckpointsCorrupt"):
        assert last.name in message


@both
def test_a_manifest_that_promises_too_much_is_refused_before_memory_is_asked_for(tmp_path: Path, ranks: int) -> None:
    """With a digest that fits, and sizes that fit each other: only the files tell."""
    run_ranks(save_values, ranks, str(tmp_path), [(1, 10.0), (2, 20.0)])
    path = tmp_path / "step-00000002" / "manifest.json"
    manifest = decode(path.read_bytes(), "m")
    name, entry = max(manifest.tensors.items(), key=lambda pair: pair[1].chunks[0].end)  # nothing lies behind it
    many = 2**50
    end = entry.chunks[0].begin + many * BITS[entry.dtype] // 8
    chunk = entry.chunks[0]._replace(offsets=(0,), sizes=(many,), end=end)
    file = replace(manifest.files[chunk.file], size=chunk.end)
    edited = replace(
        manifest,
        tensors={**manifest.tensors, name: entry._replace(shape=(many,), chunks=(chunk,))},
        files={**manifest.files, chunk.file: file},
    )
    path.write_bytes(edited.encode())
    assert decode(path.read_bytes(), "m") == edited
    assert run_ranks(restored, ranks, str(tmp_path)) == [(1, 10.0)] * ranks


def save_where_another_saves(root: str) -> str:
    directory._PATIENCE = 0.5

    def body(engine: dtk.Engine, ckpt: Checkpointer, rt: dtk.Runtime) -> str:
        with pytest.raises(errors.DirectoryInUse) as caught:
            ckpt.save(1)
        return str(caught.value)

    return str(with_checkpointer(root, body))


@both
def test_two_programs_do_not_save_in_one_directory(tmp_path: Path, ranks: int) -> None:
    storage = LocalStorage(tmp_path)
    assert storage.claim("job 17", 0.0) is None
    try:
        for words in run_ranks(save_where_another_saves, ranks, str(tmp_path)):
            assert words.startswith(f"{tmp_path} is in use by job 17; end that program, or give this one a directory")
    finally:
        storage.release()
    assert list(tmp_path.iterdir()) == []


@both
def test_a_save_with_a_failing_rank_fails_on_all_and_leaves_the_old_one(tmp_path: Path, ranks: int) -> None:
    for words in run_ranks(save_on_full_disk, ranks, str(tmp_path), ranks - 1):
        assert f"rank {ranks - 1}" in words
        assert "No space left" in words
    assert run_ranks(restored, ranks, str(tmp_path)) == [(1, 10.0)] * ranks


def save_on_full_disk(root: str, failing: int) -> str:
    def body(engine: dtk.Engine, ckpt: Checkpointer, rt: dtk.Runtime) -> str:
        fill(engine, 10.0)
        ckpt.save(1)
        fill(engine, 20.0)
        if rt.world.rank == failing:
            os.write = partial(_no_space, os.write)  # type: ignore[assignment]
        with pytest.raises(PeerError) as caught:
            ckpt.save(2)
        assert set(caught.value.failures) == {failing}
        return str(caught.value)

    return str(with_checkpointer(root, body))


def _no_space(write: Any, fd: int, data: Any) -> int:
    if len(data) > 100:  # the data file; not the token
        raise OSError(errno.ENOSPC, "No space left on device")
    return int(write(fd, data))


def test_unwritable_directory_fails_on_all_ranks(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for words in run_ranks(save_to_bad_root, 2, str(tmp_path / "file" / "ckpt")):
        assert "rank 0" in words
        assert "NotADirectoryError" in words


def save_to_bad_root(root: str) -> str:
    def body(engine: dtk.Engine, ckpt: Checkpointer, rt: dtk.Runtime) -> str:
        with pytest.raises(PeerError) as error:
            ckpt.save(1)
        return str(error.value)

    return str(with_checkpointer(root, body))


@both
def test_resume_goes_by_commit_record(tmp_path: Path, ranks: int) -> None:
    """Not by the directory's number, its age, or what looks like a checkpoint."""
    run_ranks(save_values, ranks, str(tmp_path), [(3, 30.0), (5, 50.0), (8, 80.0)])
    (tmp_path / "step-00000099").mkdir()
    (tmp_path / "step-00000099" / "rank-00000.safetensors").write_bytes(b"")
    (tmp_path / "step-00000012.tmp").mkdir()
    (tmp_path / "step-00000008").rename(tmp_path / "step-00000004")
    os.utime(tmp_path / "step-00000003")
    assert run_ranks(restored, ranks, str(tmp_path)) == [(8, 80.0)] * ranks
    assert (tmp_path / "step-00000012.tmp").exists(), "another program may be writing it: a restore changes nothing"
    run_ranks(save_values, ranks, str(tmp_path), [(9, 90.0)])
    assert not (tmp_path / "step-00000012.tmp").exists()


def separate_places(root: str, save: bool) -> str:
    mine = f"{root}/seen-by-{os.environ['RANK']}"

    def body(engine: dtk.Engine, ckpt: Checkpointer, rt: dtk.Runtime) -> str:
        with pytest.raises(StorageNotShared) as error:
            ckpt.save(1) if save else ckpt.restore()
        return str(error.value)

    return str(with_checkpointer(mine, body))


def test_filesystem_that_is_not_shared_is_named(tmp_path: Path) -> None:
    for message in run_ranks(separate_places, 2, str(tmp_path), True):
        assert "rank 1 on " in message
        assert "shared filesystem" in message
    assert not list(tmp_path.glob("*/step-00000001"))
    run_ranks(save_values, 1, str(tmp_path / "seen-by-0"), [(1, 10.0)])
    for message in run_ranks(separate_places, 2, str(tmp_path), False):
        assert "rank 1 on " in message


def created_paths(root: str) -> list[str]:
    paths: list[str] = []

    def body(engine: dtk.Engine, ckpt: Checkpointer, rt: dtk.Runtime) -> None:
        original = os.open

        def spy(path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
            if flags & os.O_CREAT:
                paths.append(str(path))
            return original(path, flags, *args, **kwargs)

        os.open = spy  # type: ignore[assignment]
        ckpt.save(1)

    with_checkpointer(root, body)
    return paths


def test_no_two_ranks_write_one_path(tmp_path: Path) -> None:
    first, second, third = run_ranks(created_paths, 3, str(tmp_path))
    assert len(first) == 4  # lock, token, data, manifest
    assert len(second) == len(third) == 1
    assert len({*first, *second, *third}) == 6


def restore_without_pickle(root: str) -> tuple[int | None, float]:
    def forbid(event: str, args: Any) -> None:
        if armed and event == "pickle.find_class":
            raise AssertionError(f"unpickles {args}")

    armed = False
    sys.addaudithook(forbid)

    def body(engine: dtk.Engine, ckpt: Checkpointer, rt: dtk.Runtime) -> tuple[int | None, float]:
        nonlocal armed
        armed = True
        step = ckpt.restore()
        armed = False
        return step, value_of(engine)

    result: tuple[int | None, float] = with_checkpointer(root, body)
    return result


class Bomb:
    """Creates a file where it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (Path(self.path),)


@both
def test_loading_runs_no_pickle(tmp_path: Path, ranks: int) -> None:
    root = str(tmp_path / "ckpt")
    run_ranks(save_values, ranks, root, [(1, 10.0), (2, 20.0)])
    assert run_ranks(restore_without_pickle, ranks, root) == [(2, 20.0)] * ranks
    for path in Path(root, "step-00000002").iterdir():
        path.write_bytes(pickle.dumps(Bomb(str(tmp_path / "exploded"))))
    assert run_ranks(restore_without_pickle, ranks, root) == [(1, 10.0)] * ranks
    assert not (tmp_path / "exploded").exists()


def save_without_rng(root: str) -> None:
    def body(engine: dtk.Engine, ckpt: Checkpointer, rt: dtk.Runtime) -> None:
        fill(engine, 10.0)
        save_checkpoint(LocalStorage(root), rt.group, [part for part in ckpt._parts if part.name != "rng"], 1)

    with_checkpointer(root, body)


@both
def test_missing_random_state_raises_unless_waived(tmp_path: Path, ranks: int) -> None:
    run_ranks(save_without_rng, ranks, str(tmp_path))
    for message in run_ranks(refused, ranks, str(tmp_path), "StateMismatch"):
        assert "'rng'" in message
        assert "waive" in message
    assert run_ranks(restored, ranks, str(tmp_path), {"waive": ["rng"]}) == [(1, 10.0)] * ranks


def loader_run(root: str, length: int, seed: int, batches: int, waive: tuple[str, ...] = (), batch: int = 4) -> Any:
    with dtk.init(seed=seed) as rt:
        loader = rt.loader(Noisy(length), global_batch_size=batch)
        ckpt = rt.checkpointer(root, loader=loader, waive=waive)
        ckpt.restore()
        start = loader.state_dict()
        for _, _ in zip(range(batches), loader, strict=False):
            pass
        ckpt.save(1)
        return start


def test_state_of_another_order_raises_unless_waived(tmp_path: Path) -> None:
    run_ranks(loader_run, 2, str(tmp_path), 40, 0, 2)
    for other in ((41, 0, 4), (40, 1, 4), (40, 0, 8)):
        assert "waive 'loader'" in run_ranks(_mismatch, 1, str(tmp_path), *other)[0]
    assert run_ranks(loader_run, 1, str(tmp_path), 40, 0, 0)[0]["position"] == 8
    assert run_ranks(loader_run, 1, str(tmp_path), 41, 0, 0, ("loader",))[0]["position"] == 0


def _mismatch(root: str, length: int, seed: int, batch: int) -> str:
    with pytest.raises(StateMismatch) as error:
        loader_run(root, length, seed, 1, batch=batch)
    return str(error.value)


def wider() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))


def renamed() -> nn.Module:
    return nn.ModuleDict({"first": nn.Linear(3, 2)})


def other_model(root: str, which: str) -> str:
    with dtk.init(seed=0) as rt:
        engine = rt.setup({"wider": wider, "renamed": renamed}[which], partial(torch.optim.AdamW, lr=0.1))
        with pytest.raises(StateMismatch) as error:
            rt.checkpointer(root, engine=engine).restore()
        return str(error.value)


@pytest.mark.parametrize(("which", "words"), [("wider", "of shape [4"), ("renamed", "model.first.bias")])
def test_checkpoint_of_another_model_is_refused_by_name(tmp_path: Path, which: str, words: str) -> None:
    run_ranks(save_values, 2, str(tmp_path), [(1, 10.0)])
    for message in run_ranks(other_model, 2, str(tmp_path), which):
        assert words in message


def save_compiled(root: str) -> None:
    with dtk.init(seed=0) as rt:
        engine = rt.setup(lambda: torch.compile(tiny()), partial(torch.optim.AdamW, lr=0.1))
        fill(engine, 10.0)
        rt.checkpointer(root, engine=engine).save(1)


def test_keys_are_the_users_own_names(tmp_path: Path) -> None:
    """Saved by a plain model, under DDP and under torch.compile: one set of keys, without any wrapper's prefix."""
    keys = []
    for name, ranks, save in (("a", 1, save_values), ("b", 2, save_values), ("c", 2, save_compiled)):
        run_ranks(save, ranks, str(tmp_path / name), *([[(1, 10.0)]] if save is save_values else []))
        manifest = json.loads((tmp_path / name / "step-00000001" / "manifest.json").read_text())
        keys.append({key for key in manifest["body"]["tensors"] if not key.startswith("rng.")})
        assert run_ranks(restored, 1, str(tmp_path / name)) == [(1, 10.0)]
    assert keys[0] == keys[1] == keys[2]
    assert "model.0.weight" in keys[0]
    assert "optim.2.bias.exp_avg_sq" in keys[0]
    assert not [
        key for key in keys[0] for part in ("module", "_orig_mod", "_fsdp_wrapped_module") if part in key.split(".")
    ]


@pytest.mark.parametrize("ranks", [1, 3])
def test_saved_on_two_ranks_restored_on_others(tmp_path: Path, ranks: int) -> None:
    run_ranks(save_values, 2, str(tmp_path), [(1, 10.0)])
    assert run_ranks(restored, ranks, str(tmp_path)) == [(1, 10.0)] * ranks


def save_scored(root: str, scores: list[float], options: dict[str, Any]) -> None:
    def body(engine: dtk.Engine, ckpt: Checkpointer, rt: dtk.Runtime) -> None:
        for step, score in enumerate(scores, start=1):
            ckpt.report(accuracy=score)
            ckpt.save(step)

    with_checkpointer(root, body, **options)


def test_retention_keeps_the_newest_and_the_best(tmp_path: Path) -> None:
    (tmp_path / "step-00000050").mkdir()  # never committed: neither counted nor deleted
    run_ranks(save_scored, 1, str(tmp_path), [0.1, 0.9, 0.5, 0.4], {"keep_last": 1, "keep_best": "max:accuracy"})
    run_ranks(
        save_scored,
        1,
        str(tmp_path / "nan"),
        [0.4, float("nan"), 0.9, 0.4],
        {"keep_last": 1, "keep_best": "min:accuracy"},
    )
    assert sorted(p.name for p in (tmp_path / "nan").iterdir()) == ["step-00000001", "step-00000004"]
    assert sorted(p.name for p in tmp_path.glob("step-*")) == ["step-00000002", "step-00000004", "step-00000050"]
    run_ranks(save_scored, 1, str(tmp_path / "low"), [0.4, 0.2, 0.5], {"keep_last": 1, "keep_best": "min:accuracy"})
    assert sorted(p.name for p in (tmp_path / "low").iterdir()) == ["step-00000002", "step-00000003"]


def test_file_opens_with_the_safetensors_library(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    run_ranks(save_values, 2, str(tmp_path), [(1, 10.0)])
    found: dict[str, torch.Tensor] = {}
    for path in (tmp_path / "step-00000001").glob("*.safetensors"):
        found |= load_file(path)
    assert found["model.0.weight"].shape == (2, 3)
    assert found["optim.0.weight.exp_avg"].eq(10.0).all()
    assert found["model.1.num_batches_tracked"].dtype == torch.int64
    assert found["rng.1.torch"].dtype == torch.uint8


def taken_over(root: str) -> str:
    """Another run starts to save the same step between this one's writes and its commit."""
    from dist_toolkit.checkpoint import save

    original = save._write_all

    def write_then_lose(storage: Any, group: Any, *rest: Any) -> Any:
        written = original(storage, group, *rest)
        if group.world.is_main:
            Path(root, "step-00000002.tmp", "attempt").write_text("another run")
        return written

    def body(engine: dtk.Engine, ckpt: Checkpointer, rt: dtk.Runtime) -> str:
        fill(engine, 10.0)
        ckpt.save(1)
        save._write_all = write_then_lose
        with pytest.raises(PeerError) as caught:
            ckpt.save(2)
        return str(caught.value)

    return str(with_checkpointer(root, body))


def test_two_runs_in_one_directory_do_not_mix(tmp_path: Path) -> None:
    for message in run_ranks(taken_over, 2, str(tmp_path)):
        assert "taken over by another run" in message
    assert run_ranks(restored, 2, str(tmp_path)) == [(1, 10.0)] * 2


class Moody:
    """A user's state that fails on one rank."""

    def __init__(self, rank: int, how: str) -> None:
        self.fails, self.how = rank == 1, how

    def state_dict(self) -> dict[str, Any]:
        if self.fails and self.how == "capture":
            raise RuntimeError("not now")
        return {"sparse": torch.eye(2).to_sparse()} if self.how == "sparse" else {"n": 1, "t": torch.ones(2)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        assert (state["n"], state["t"].tolist()) == (1, [1.0, 1.0])
        if self.fails and self.how == "install":
            raise RuntimeError("not that one")


def moody(root: str, how: str) -> list[str]:
    with dtk.init() as rt:
        engine = rt.setup(tiny, partial(torch.optim.SGD, lr=0.1))
        ckpt = rt.checkpointer(root, engine=engine, state={"mine": Moody(rt.world.rank, how)})
        said = []
        for call in (lambda: ckpt.save(1), ckpt.restore):
            try:
                call()
                said.append("done")
            except Exception as error:
                said.append(f"{type(error).__name__}: {error}")
        return said


@pytest.mark.parametrize(
    ("how", "own", "peers"),
    [
        ("capture", ["RuntimeError: not now", "done"], ["rank 1: RuntimeError: not now", "done"]),
        ("install", ["done", "RuntimeError: not that one"], ["done", "rank 1: RuntimeError: not that one"]),
        ("sparse", ["Tensor (torch.float32, torch.sparse_coo", "done"], ["torch.sparse_coo", "done"]),
    ],
)
def test_a_users_state_that_fails_on_one_rank_fails_on_all(
    tmp_path: Path, how: str, own: list[str], peers: list[str]
) -> None:
    """At once, and not by a timeout."""
    first, second = run_ranks(moody, 2, str(tmp_path), how, timeout=30)
    assert all(part in text for part, text in zip(peers, first, strict=True)), first
    assert all(part in text for part, text in zip(own, second, strict=True)), second


# --- going back -----------------------------------------------------------------------------------------------------


def go_back_and_save(root: str, to: int | None, steps: list[int]) -> int | None:
    def body(engine: dtk.Engine, ckpt: Checkpointer, rt: dtk.Runtime) -> int | None:
        found = ckpt.restore(to)
        for step in steps:
            fill(engine, step * 100.0)
            ckpt.save(step)
        return found

    result: int | None = with_checkpointer(root, body, keep_last=2)
    return result


@both
def test_after_falling_back_the_new_checkpoints_are_the_ones_kept(tmp_path: Path, ranks: int) -> None:
    """Damaged ones neither count for retention nor shadow the new ones; they are set aside, not deleted."""
    run_ranks(save_values, ranks, str(tmp_path), [(step, step * 10.0) for step in (5, 10, 15, 20)])
    for step in (15, 20):
        path = tmp_path / f"step-{step:08d}" / "rank-00000.safetensors"
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert run_ranks(go_back_and_save, ranks, str(tmp_path), None, [11]) == [10] * ranks
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["step-00000010", "step-00000011", "step-00000015.aside", "step-00000020.aside"]
    assert run_ranks(restored, ranks, str(tmp_path)) == [(11, 1100.0)] * ranks
    assert (tmp_path / "step-00000020.aside" / "manifest.json").exists()


def test_a_run_that_went_back_goes_on_from_its_own_checkpoints(tmp_path: Path) -> None:
    run_ranks(save_values, 2, str(tmp_path), [(step, step * 10.0) for step in (5, 10, 15)])
    assert run_ranks(go_back_and_save, 2, str(tmp_path), 5, [7]) == [5, 5]
    assert run_ranks(restored, 2, str(tmp_path)) == [(7, 700.0)] * 2


# --- what a state may hold ------------------------------------------------------------------------------------------


class Extra(nn.Linear):
    """A module with extra state, a frozen normalisation, an expanded buffer on demand."""

    def __init__(self, expanded: bool = False) -> None:
        super().__init__(3, 2)
        self.version = 1
        if expanded:
            self.register_buffer("mask", torch.ones(1).expand(4))

    def get_extra_state(self) -> Any:
        return {"version": self.version}

    def set_extra_state(self, state: Any) -> None:
        self.version = state["version"]


class ListState(torch.optim.SGD):
    """Keeps a list of tensors, as second-order optimizers do."""

    def step(self, closure: Any = None) -> None:
        for parameter in self.param_groups[0]["params"]:
            self.state[parameter]["factors"] = [torch.ones(2)]


def unusual_states(root: str) -> list[str]:
    said = []
    with dtk.init() as rt:
        engine = rt.setup(Extra, partial(torch.optim.SGD, lr=0.1))
        engine.module.version = 7
        rt.checkpointer(f"{root}/extra", engine=engine).save(1)
        fresh = rt.setup(Extra, partial(torch.optim.SGD, lr=0.1))
        rt.checkpointer(f"{root}/extra", engine=fresh).restore()
        said.append(str(fresh.module.version))
        listed = rt.setup(Extra, partial(ListState, lr=0.1))
        listed.step()
        expanded = rt.setup(partial(Extra, True), partial(torch.optim.SGD, lr=0.1))
        for engine in (listed, expanded):
            with pytest.raises(errors.NotSerializable) as caught:
                rt.checkpointer(f"{root}/other", engine=engine).save(1)
            said.append(str(caught.value))
    return said


def test_unusual_state_comes_back_or_is_refused_by_name_at_the_save(tmp_path: Path) -> None:
    version, listed, expanded = run_ranks(unusual_states, 1, str(tmp_path))[0]
    assert version == "7"
    assert "factors" in listed
    assert "model.mask" in expanded


OPTIMIZERS = {
    "sgd": partial(torch.optim.SGD, lr=0.1),
    "momentum": partial(torch.optim.SGD, lr=0.1, momentum=0.9, nesterov=True),
    "amsgrad": partial(torch.optim.Adam, lr=0.1, amsgrad=True),
    "rmsprop": partial(torch.optim.RMSprop, lr=0.1, momentum=0.5, centered=True),
    "adagrad": partial(torch.optim.Adagrad, lr=0.1),
    "nadam": partial(torch.optim.NAdam, lr=0.1),
}


class Tied(nn.Module):
    """A tied weight, a frozen layer, and a scalar parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
        self.outer.weight = self.inner.weight
        self.frozen = nn.Linear(4, 4).requires_grad_(False)
        self.scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.scale * self.outer(self.frozen(self.inner(x)))


def steps_of(root: str, kind: str, until: int) -> str:
    """`until` steps in all, restored from what is there; with a schedule as the user's own state."""
    from tests.multiproc.training import digest

    with dtk.init(seed=1) as rt:
        engine = rt.setup(Tied, OPTIMIZERS[kind])
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            engine.optimizer, 0.2, total_steps=20, cycle_momentum=kind != "adagrad"
        )
        ckpt = rt.checkpointer(root, engine=engine, state={"schedule": schedule})
        first = ckpt.restore() or 0
        for step in range(first + 1, until + 1):
            x = torch.ones(2, 4) * (step + rt.world.rank)
            engine.backward(engine(x).square().mean())
            engine.clip_grad_norm(1.0)
            engine.step()
            schedule.step()
        ckpt.save(until)
        state = {k: v for k, v in engine.state_dict().items() if isinstance(v, torch.Tensor)}
        assert engine.module.outer.weight is engine.module.inner.weight
        return digest(state) + str([group["lr"] for group in engine.optimizer.param_groups])


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_optimizers_schedules_tied_and_frozen_weights_resume_exactly(tmp_path: Path, kind: str) -> None:
    whole = run_ranks(steps_of, 2, str(tmp_path / "whole"), kind, 7)
    run_ranks(steps_of, 2, str(tmp_path / "parts"), kind, 3)
    assert run_ranks(steps_of, 2, str(tmp_path / "parts"), kind, 7) == whole
