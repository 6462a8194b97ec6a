"""`dtk ckpt convert`: one safetensors file from chunks, read by safetensors itself."""

from __future__ import annotations

import numpy
import pytest
from safetensors.numpy import load_file

from tests.unit.checkpoint.made_up import cut, model, whole, write


@pytest.mark.parametrize("cuts", [[[], [], []], [[1, 3], [], []], [[], [1], [4]], [[2], [1, 2], [1, 3]]])
def test_tensors_are_put_together_however_they_were_cut(tmp_path, ckpt, cuts):
    content = bytes(range(60))
    names = [{"model.w": ((4, 3, 5), box)} for box in cut((4, 3, 5), cuts, content)]
    names[0].update({"model.scalar": whole(fill=9), "model.none": whole(0, 3), "optim.w": whole(2)})
    write(tmp_path, 1, names)
    answer = ckpt("convert", tmp_path, tmp_path / "out.safetensors", "--json")
    assert (answer.code, answer.json["tensors"], answer.json["size"]) == (0, 3, 61)
    loaded = load_file(tmp_path / "out.safetensors")
    assert {name: array.shape for name, array in loaded.items()} == {"w": (4, 3, 5), "scalar": (), "none": (0, 3)}
    assert (loaded["w"] == numpy.arange(60).reshape(4, 3, 5)).all()
    assert ckpt("convert", tmp_path, tmp_path / "all.safetensors", "--all").code == 0
    assert set(load_file(tmp_path / "all.safetensors")) == {"model.w", "model.scalar", "model.none", "optim.w"}


@pytest.mark.parametrize("damage", ["bit", "missing", "shorter", "record"])
def test_damage_leaves_no_file(tmp_path, ckpt, damage):
    (tmp_path / "run").mkdir()
    write(tmp_path / "run", 1, [model()])
    path = tmp_path / "run" / "step-00000001" / ("manifest.json" if damage == "record" else "rank-00000.safetensors")
    data = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes(data[:-1] + (b"" if damage == "shorter" else b"\x00"))
    answer = ckpt("convert", tmp_path / "run" / "step-00000001", tmp_path / "out.safetensors")
    assert (answer.code, "not converted" in answer.out, path.name in answer.out) == (1, True, True)
    assert [entry.name for entry in tmp_path.iterdir()] == ["run"]


def test_a_file_is_replaced_only_when_asked_for(tmp_path, ckpt):
    write(tmp_path, 1, [model()])
    out = tmp_path / "out.safetensors"
    out.write_text("mine")
    answer = ckpt("convert", tmp_path, out)
    assert (answer.code, "--force" in answer.err, out.read_text()) == (2, True, "mine")
    assert ckpt("convert", tmp_path, out, "--force").code == 0
    assert len(load_file(out)) == 8
    assert "is a directory" in ckpt("convert", tmp_path, tmp_path).err
    assert "does not exist" in ckpt("convert", tmp_path, tmp_path / "no" / "file").err


def test_one_of_several_engines(tmp_path, ckpt):
    write(tmp_path, 1, [{"gen.model.w": whole(3), "disc.model.w": whole(2), "gen.optim.w.exp_avg": whole(3)}])
    answer = ckpt("convert", tmp_path, tmp_path / "out")
    assert (answer.code, "--engine NAME takes one of several engines (disc, gen)" in answer.err) == (2, True)
    assert ckpt("convert", tmp_path, tmp_path / "out", "--engine", "gen").code == 0
    assert load_file(tmp_path / "out")["w"].shape == (3,)
