from pathlib import Path

import pytest
import torch
from checkpoint_parts import place
from checkpoint_parts.methods import plain
from checkpoint_parts.state import State
from checkpoint_parts.tables import METHODS, Layout

LAYOUT = Layout(tensors=3, rows=5, columns=2, ranks=2)


def test_all_ranks_draw_the_same_state_and_hold_their_share_of_it():
    first, second = (State(LAYOUT, rank, None, 7, whole=True) for rank in (0, 1))
    for name, tensor in first.whole.items():
        assert torch.equal(tensor, second.whole[name])
        assert torch.equal(tensor, torch.cat([first.shares[name], second.shares[name]]))
        assert first.shares[name].untyped_storage().nbytes() == 40, "else torch.save would write the whole"
    first.mark(3.0)
    second.mark(3.0)
    assert all(torch.equal(first.whole[n], torch.cat([t, second.shares[n]])) for n, t in first.shares.items())


@pytest.mark.parametrize("whole", [False, True])
def test_one_bit_one_name_or_another_save_is_not_the_same(whole):
    state = State(LAYOUT, 1, None, 0, whole=True)
    good = {name: tensor.clone() for name, tensor in (state.whole if whole else state.shares).items()}
    assert state.is_same(good)
    flipped = good["t00001"].clone()
    flipped.view(torch.int32)[4, 1] ^= 1
    assert not state.is_same({**good, "t00001": flipped})
    assert not state.is_same({name: good[name] for name in ("t00000", "t00001")})
    assert not state.is_same({})
    state.mark(5.0)
    assert not state.is_same(good)


def test_negative_zero_and_nan_are_compared_by_their_bits():
    state = State(LAYOUT, 0, None, 0, whole=False)
    state.mark(float("nan"))
    assert state.is_same({name: tensor.clone() for name, tensor in state.shares.items()})
    state.mark(0.0)
    loaded = {name: tensor.clone() for name, tensor in state.shares.items()}
    state.mark(-0.0)
    assert not state.is_same(loaded)


def test_the_bare_files_are_written_in_calls_that_the_system_takes(monkeypatch):
    monkeypatch.setattr(plain, "_VECTOR", 2)
    monkeypatch.setattr(plain, "_AT_ONCE", 100)
    tensors = [torch.arange(count, dtype=torch.float32) for count in (5, 5, 5, 60, 0, 20, 10)]
    groups = list(plain._groups(tensors))
    assert b"".join(bytes(view) for group, _ in groups for view in group) == b"".join(
        tensor.numpy().tobytes() for tensor in tensors
    )
    assert all(len(group) <= 2 and size <= 100 for group, size in groups)
    assert all(size == sum(map(len, group)) for group, size in groups)


def test_a_place_is_emptied_and_removed(tmp_path):
    with place.temporary_place(tmp_path) as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "file").write_text("x")
        (folder / "file").write_text("y")
        place.forget(folder)
        place.sync(folder / "file")
        place.empty(folder, 0.0)
        assert list(folder.iterdir()) == []
        (folder / "left").touch()
    assert list(tmp_path.iterdir()) == []


def test_the_filesystem_is_that_of_the_deepest_mount(tmp_path):
    mounts = tmp_path / "mounts"
    mounts.write_text("disk / ext4 rw 0 0\nx /data xfs rw 0 0\ntmpfs /data/fast tmpfs rw 0 0\n")
    assert place.filesystem_of(Path("/data/fast/a"), mounts) == "tmpfs"
    assert place.filesystem_of(Path("/database"), mounts) == "ext4"
    assert place.filesystem_of(Path("/"), tmp_path / "none") == "unknown"


def test_every_method_says_what_it_does():
    assert all(spec.title and spec.remark.endswith(".") for spec in METHODS.values())
