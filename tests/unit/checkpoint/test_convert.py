"""`dtk ckpt convert`: one safetensors file from chunks, read by safetensors itself; names and types on the way."""

from __future__ import annotations

import struct

import numpy
import pytest
import torch
from safetensors.numpy import load_file

from dist_toolkit.checkpoint.tool.cast import DoesNotFit, cast
from dist_toolkit.tensors import DTYPES, byte_view
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
    assert "does not exist" in ckpt("convert", tmp_path, tmp_path / "no" / "file.safetensors").err


def test_one_of_several_engines(tmp_path, ckpt):
    write(tmp_path, 1, [{"gen.model.w": whole(3), "disc.model.w": whole(2), "gen.optim.w.exp_avg": whole(3)}])
    out = tmp_path / "out.safetensors"
    answer = ckpt("convert", tmp_path, out)
    assert (answer.code, "--engine NAME takes one of several engines (disc, gen)" in answer.err) == (2, True)
    assert ckpt("convert", tmp_path, out, "--engine", "gen").code == 0
    assert load_file(out)["w"].shape == (3,)


def test_what_to_write_is_said_by_the_name_or_by_to(tmp_path, ckpt):
    write(tmp_path, 1, [model()])
    answer = ckpt("convert", tmp_path, tmp_path / "weights")
    assert (answer.code, "--to safetensors" in answer.err, "--to hf" in answer.err) == (2, True, True)
    assert ckpt("convert", tmp_path, tmp_path / "weights", "--to", "safetensors").code == 0
    assert len(load_file(tmp_path / "weights")) == 8
    for option in (["--config", "x"], ["--max-shard-size", "1GB"], ["--model-key", "x"], ["--param-names", "x"]):
        answer = ckpt("convert", tmp_path, tmp_path / "more.safetensors", *option)
        assert (answer.code, option[0] in answer.err, "leave it out" in answer.err) == (2, True, True)
    assert "--all" in ckpt("convert", tmp_path, tmp_path / "x.safetensors", "--all", "--dtype", "bf16").err


def test_prefixes_are_taken_off(tmp_path, ckpt):
    write(tmp_path, 1, [{"model.net.body.w": whole(3), "model.net.head.w": whole(2), "model.head.w": whole(1)}])
    out = tmp_path / "out.safetensors"
    assert "no name begins with it" in ckpt("convert", tmp_path, out, "--strip", "nett.").err
    assert "gives two tensors the name head.w" in ckpt("convert", tmp_path, out, "--strip", "net.").err
    assert ckpt("convert", tmp_path, out, "--strip", "net.body.").code == 0
    assert set(load_file(out)) == {"w", "net.head.w", "head.w"}


NUMBERS = [0.0, -0.0, 1.0, -1.5, 3.14159265, 1e-40, 6e-8, 5.96e-8, 65504.0, 1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-11,
           float("inf"), float("-inf"), float("nan"), 2.0**-126, 1e-45]  # fmt: skip


@pytest.mark.parametrize("saved", ["F64", "F32", "F16", "BF16"])
@pytest.mark.parametrize("wanted", ["F32", "F16", "BF16"])
def test_floats_are_cast_as_torch_casts_them(saved, wanted):
    bits = torch.randint(-(2**31), 2**31, (20000,), generator=torch.Generator().manual_seed(1)).int()
    given = torch.cat([torch.tensor(NUMBERS), bits.view(torch.float32)]).to(DTYPES[saved])
    expected = given.to(DTYPES[wanted])
    fits = given.isfinite().logical_not() | expected.isfinite()
    given, expected = given[fits], expected[fits]
    made = torch.frombuffer(bytearray(cast(byte_view(given), saved, wanted)), dtype=DTYPES[wanted])
    assert torch.equal(made.isnan(), expected.isnan())
    bytes_of = [tensor.view(torch.uint8).view(len(made), -1) for tensor in (made, expected)]
    same = made.isnan() | (bytes_of[0] == bytes_of[1]).all(1)
    assert same.all(), (given[~same][:3], made[~same][:3], expected[~same][:3])
    assert len(made) > 5000


@pytest.mark.parametrize(("saved", "wanted", "large"), [("F32", "F16", 65520.0), ("F32", "BF16", 3.4e38)])
def test_a_number_that_does_not_fit_is_refused(saved, wanted, large):
    cast(struct.pack("<ff", float("inf"), 65504.0), saved, wanted)
    with pytest.raises(DoesNotFit, match="does not fit"):
        cast(struct.pack("<ff", 1.0, large), saved, wanted)
