"""`dtk ckpt` on checkpoints that the runtime wrote: what one bit does, and ranks that cut tensors differently."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import dist_toolkit as dtk
from dist_toolkit.checkpoint.layout import MANIFEST
from dist_toolkit.checkpoint.manifest import decode
from dist_toolkit.checkpoint.tool.app import main
from dist_toolkit.testing import run_ranks
from tests.multiproc.saving import restored, save_values, tiny

pytestmark = pytest.mark.multiproc

FILE = "rank-00000.safetensors"
Say = Callable[..., tuple[int, str]]


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Say:
    """Run `dtk ckpt WORDS`: (exit code, stdout)."""

    def call(*words: object) -> tuple[int, str]:
        code = main([str(word) for word in words])
        return code, capsys.readouterr().out

    return call


def test_a_flipped_bit_is_found_by_the_tool_as_by_a_restore(tmp_path: Path, say: Say) -> None:
    run_ranks(save_values, 1, str(tmp_path), [(1, 10.0), (2, 20.0)])
    assert say("verify", tmp_path)[0] == say("ls", tmp_path)[0] == 0
    folder = tmp_path / "step-00000002"
    manifest = decode((folder / MANIFEST).read_bytes(), "manifest")
    begin = manifest.tensors["optim.2.weight.exp_avg"].chunks[0].begin
    data = bytearray((folder / FILE).read_bytes())
    data[begin] ^= 1
    (folder / FILE).write_bytes(data)
    code, text = say("verify", tmp_path)
    assert code == 1
    assert f"{FILE}: optim.2.weight.exp_avg: bytes {begin} to" in text
    assert say("verify", tmp_path, "--step", 1)[0] == 0
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    for words in (["ls", tmp_path], ["show", tmp_path], ["diff", tmp_path, "--step", 1, "--step", 2]):
        say(*words)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before, "only prune changes anything"
    assert run_ranks(restored, 1, str(tmp_path)) == [(1, 10.0)]


def test_what_prune_leaves_is_restored(tmp_path: Path, say: Say) -> None:
    run_ranks(save_values, 1, str(tmp_path), [(1, 10.0), (2, 20.0), (3, 30.0)])
    os.truncate(tmp_path / "step-00000003" / FILE, 3000)
    assert say("prune", tmp_path, "--keep-last", 1, "--yes")[0] == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000002", "step-00000003"]
    assert run_ranks(restored, 1, str(tmp_path)) == [(2, 20.0)]


def save_as(root: str, strategy: str) -> None:
    with dtk.init(seed=0) as rt:
        engine = rt.setup(tiny, partial(torch.optim.AdamW, lr=0.1), strategy=strategy)
        rt.checkpointer(root, engine=engine).save(1)


def test_one_rank_and_two_that_share_its_tensors_are_the_same_weights(tmp_path: Path, say: Say) -> None:
    run_ranks(save_as, 1, str(tmp_path / "single"), "single")
    run_ranks(save_as, 2, str(tmp_path / "fsdp"), "fsdp")
    cut = decode((tmp_path / "fsdp" / "step-00000001" / MANIFEST).read_bytes(), "manifest").tensors
    assert any(len(tensor.chunks) == 2 for tensor in cut.values())
    code, text = say("diff", tmp_path / "single", tmp_path / "fsdp", "--only", "model")
    assert (code, "identical: 9 tensors the same" in text) == (0, True), text
    code, text = say("diff", tmp_path / "single", tmp_path / "fsdp", "--json")
    found = json.loads(text)
    assert code == 1
    assert {"path": "strategy.name", "a": "single", "b": "fsdp"} in found["values"]
    assert {name.split(".")[1] for name in found["added"]} == {"1"}, "the second rank's random generators"
    weights = [tmp_path / f"{name}.safetensors" for name in ("single", "fsdp")]
    assert [say("convert", tmp_path / path.stem, path)[0] for path in weights] == [0, 0]
    mine, theirs = map(load_file, weights)
    tiny().load_state_dict(theirs)
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    assert "fsdp, fp32" in say("ls", tmp_path / "fsdp")[1]
