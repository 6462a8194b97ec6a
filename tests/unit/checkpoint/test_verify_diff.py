"""`dtk ckpt verify` and `diff`, on checkpoints made up."""

from __future__ import annotations

import os
import random
from dataclasses import replace

import pytest

from dist_toolkit.checkpoint.layout import MANIFEST
from tests.unit.checkpoint.made_up import VALUES, cut, model, whole, write

FILE = "rank-00000.safetensors"


def flip(path, byte, bit=0):
    data = bytearray(path.read_bytes())
    data[byte] ^= 1 << bit
    path.write_bytes(data)


def test_a_flipped_bit_is_named_with_its_file_and_tensor(tmp_path, ckpt, golden):
    write(tmp_path, 1, [model()])
    bad = write(tmp_path, 2, [model(), {"rng.1": whole(5)}])
    assert ckpt("verify", tmp_path).code == 0
    chunk = bad.tensors["model.layers.1.down.weight"].chunks[0]
    flip(tmp_path / "step-00000002" / FILE, chunk.begin + 3)
    answer = ckpt("verify", tmp_path)
    golden("checkpoint/verify.txt", answer.out)
    assert answer.code == 1
    (damage,) = ckpt("verify", tmp_path, "--step", 2, "--json").json["checkpoints"][0]["damage"]
    assert (damage["file"], damage["tensor"]) == (FILE, "model.layers.1.down.weight")
    assert ckpt("verify", tmp_path, "--step", 1).code == ckpt("verify", tmp_path / "step-00000001").code == 0


def test_every_flipped_bit_is_found(tmp_path, ckpt):
    write(tmp_path, 1, [{"a": whole(7), "b": whole(2, 3)}, {"c": whole(4)}])
    choices = random.Random(1)
    for path in sorted((tmp_path / "step-00000001").iterdir()):
        good = path.read_bytes()
        for _ in range(40):
            flip(path, choices.randrange(len(good)), choices.randrange(8))
            answer = ckpt("verify", tmp_path)
            assert (answer.code, path.name in answer.out) == (1, True)
            path.write_bytes(good)
    assert ckpt("verify", tmp_path).code == 0


def test_chunks_that_overlap_leave_a_part_out(tmp_path, ckpt):
    """Their elements add up to those of the tensor, and their digests fit."""
    half = ((4,), ((0,), (2,), b"ab"))
    write(tmp_path, 1, [{"w": half}, {"w": half}])
    answer = ckpt("verify", tmp_path)
    assert (answer.code, "w: two chunks hold the same elements" in answer.out) == (1, True)
    assert ckpt("convert", tmp_path, tmp_path / "w.safetensors", "--all").code == 2, "no record that can be used"


@pytest.mark.parametrize("damage", ["cut", "removed", "longer", "hole", "edited", "no record", "huge"])
def test_other_damage_is_named(tmp_path, ckpt, damage):
    manifest = write(tmp_path, 1, [{"a": whole(7), "b": whole(3)}])
    folder = tmp_path / "step-00000001"
    entry = manifest.files[FILE]
    said = {
        "cut": "b: bytes", "removed": "is missing, and with it a and 1 more tensor", "longer": "should have",
        "hole": "of no tensor", "edited": "does not match its own digest", "no record": "manifest.json: is missing",
        "huge": "should have",
    }[damage]  # fmt: skip
    if damage == "cut":
        os.truncate(folder / FILE, entry.size - 1)
    elif damage == "removed":
        (folder / FILE).unlink()
    elif damage == "longer":
        os.truncate(folder / FILE, entry.size + 10)
    elif damage == "hole":
        os.truncate(folder / FILE, entry.size + 10)
        grown = replace(manifest, files={FILE: replace(entry, size=entry.size + 10)})
        (folder / MANIFEST).write_bytes(grown.encode())
    elif damage == "huge":  # nothing of that size is allocated
        huge = replace(manifest, tensors={}, files={FILE: replace(entry, size=2**60, header=2**60)})
        (folder / MANIFEST).write_bytes(huge.encode())
    elif damage == "edited":
        data = (folder / MANIFEST).read_bytes()
        (folder / MANIFEST).write_bytes(data.replace(b'"step": 1', b'"step": 2'))
    else:
        (folder / MANIFEST).unlink()
    answer = ckpt("verify", tmp_path)
    assert answer.code == 1
    assert said in answer.out


def test_those_set_aside_are_verified_when_asked_for(tmp_path, ckpt):
    write(tmp_path, 1, [model()])
    write(tmp_path, 2, [model()], folder="step-00000002.aside")
    flip(tmp_path / "step-00000002.aside" / FILE, -1)
    answer = ckpt("verify", tmp_path)
    assert (answer.code, "1 set aside not looked at (--all)" in answer.out) == (0, True)
    assert ckpt("verify", tmp_path, "--all").code == ckpt("verify", tmp_path / "step-00000002.aside").code == 1


def test_nothing_to_verify_is_not_fine(tmp_path, ckpt):
    (tmp_path / "step-00000001.tmp").mkdir()
    answer = ckpt("verify", tmp_path)
    assert (answer.code, answer.out) == (1, "there is no committed checkpoint to verify\n")
    assert "no committed checkpoint" in ckpt("show", tmp_path).err
    assert "uncommitted" in ckpt("show", tmp_path / "step-00000001.tmp").out


def test_diff_names_everything_that_differs(tmp_path, ckpt, golden):
    changed = {**VALUES, "engine": {"optim_groups": {"groups": [{"lr": 0.2, "betas": {"$tuple": [0.9]}}]}}}
    write(tmp_path, 1, [{**model(), "optim.old": whole(3)}], values=VALUES, metrics={"loss": 1.0})
    other = {**model(), "model.norm": whole(2), "model.embed.weight": whole(100, 20, fill=2), "optim.new": whole(3)}
    write(tmp_path, 2, [other], values=changed, metrics={"loss": 0.5})
    answer = ckpt("diff", tmp_path, "--step", 1, "--step", 2)
    golden("checkpoint/diff.txt", answer.out)
    assert answer.code == 1
    found = ckpt("diff", tmp_path / "step-00000001", tmp_path / "step-00000002", "--json").json
    assert (found["removed"], found["added"], found["identical"]) == (["optim.old"], ["optim.new"], False)
    assert found["changed"] == ["model.embed.weight"]
    assert found["reshaped"] == [{"tensor": "model.norm", "a": "U8 []", "b": "U8 [2]"}]
    assert found["values"][1] == {"path": "engine.optim_groups.groups.0.betas.1", "a": 0.999}
    only = ckpt("diff", tmp_path, "--step", 1, "--step", 2, "--only", "model.layers", "--only", "loader")
    assert (only.code, "identical: 6 tensors" in only.out) == (0, True)


@pytest.mark.parametrize(
    ("left", "right"),
    [([[], [], []], [[2], [], []]), ([[1, 3], [], []], [[2], [], []]), ([[1], [2], []], [[2, 3], [], [4]]),
     ([[], [1, 2], []], [[], [], [3]])],
)  # fmt: skip
def test_tensors_cut_differently_are_compared_by_their_bytes(tmp_path, ckpt, left, right):
    shape = (4, 3, 5)
    content = bytes(range(60))
    for step, cuts in ((1, left), (2, right)):
        write(tmp_path, step, [{"w": (shape, box)} for box in cut(shape, cuts, content)])
    steps = ("--step", 1, "--step", 2)
    assert ckpt("diff", tmp_path, *steps).code == 0
    for cell in range(0, 60, 7):
        other = bytearray(content)
        other[cell] ^= 1
        for path in (tmp_path / "step-00000002").iterdir():
            path.unlink()
        (tmp_path / "step-00000002").rmdir()
        write(tmp_path, 2, [{"w": (shape, box)} for box in cut(shape, right, other)])
        answer = ckpt("diff", tmp_path, *steps, "--json")
        assert (answer.code, answer.json["changed"]) == (1, ["w"]), cell


def test_diff_needs_two_usable_checkpoints(tmp_path, ckpt):
    write(tmp_path, 1, [model()])
    assert "needs two steps" in ckpt("diff", tmp_path).err
    assert "there are: 1" in ckpt("diff", tmp_path, "--step", 1, "--step", 3).err
    (tmp_path / "step-00000001" / MANIFEST).unlink()
    answer = ckpt("diff", tmp_path / "step-00000001", tmp_path / "step-00000001")
    assert (answer.code, "manifest.json is missing" in answer.err) == (2, True)
