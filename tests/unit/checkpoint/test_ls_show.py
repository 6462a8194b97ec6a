"""`dtk ckpt ls` and `show`, on checkpoints made up."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dist_toolkit.checkpoint.layout import MANIFEST
from dist_toolkit.checkpoint.manifest import Manifest
from dist_toolkit.checkpoint.tool import tree
from dist_toolkit.checkpoint.tool.records import read
from dist_toolkit.checkpoint.tool.terminal import style_of
from dist_toolkit.checkpoint.tool.units import printable, size_text, when_text
from dist_toolkit.storage import LocalStorage
from tests.unit.checkpoint.made_up import VALUES, later_format, model, whole, write


def every_state(root: Path) -> None:
    write(root, 10, [model()], values=VALUES, metrics={"accuracy": 0.25})
    write(root, 20, [model(), {"rng.1": whole(5)}], values=VALUES, metrics={"accuracy": 0.9751234, "loss": 0.125})
    write(root, 30, [model()])
    (root / "step-00000030" / "rank-00000.safetensors").unlink()
    write(root, 40, [model()])
    edited = root / "step-00000040" / MANIFEST
    edited.write_bytes(edited.read_bytes().replace(b'"step": 40', b'"step": 41'))
    write(root, 50, [model()], folder="step-00000050.aside")
    write(root, 20, [model()], folder="step-00000020.old")
    (root / "step-00000060.tmp").mkdir()
    (root / "step-00000060.tmp" / "rank-00000.safetensors").write_bytes(b"x" * 3000)
    (root / "step-00000001.del").mkdir()
    (root / "notes.txt").write_text("not ours")


def test_ls_tells_every_state(tmp_path, ckpt, golden):
    every_state(tmp_path)
    answer = ckpt("ls", tmp_path)
    golden("checkpoint/ls.txt", answer.out)
    assert answer.code == 1
    rows = ckpt("ls", tmp_path, "--json").json["checkpoints"]
    assert [(row["step"], row["state"]) for row in rows] == [
        (60, "uncommitted"), (50, "set aside"), (40, "damaged"), (30, "damaged"),
        (20, "committed"), (20, "replaced"), (10, "committed"), (1, "being deleted"),
    ]  # fmt: skip
    assert rows[4]["metrics"] == {"accuracy": 0.9751234, "loss": 0.125}
    assert rows[4]["strategy"] == {"name": "fsdp", "precision": "bf16"}
    assert rows[4]["world_size"] == 2


def test_a_later_format_is_not_called_damaged(tmp_path, ckpt):
    write(tmp_path, 10, [model()])
    later_format(tmp_path, 20)
    words = "checkpoint format 2; this version of dist-toolkit reads format 1: update dist-toolkit"
    listed = ckpt("ls", tmp_path)
    assert f"other format: {words}\n" in listed.out
    assert "damaged" not in listed.out
    assert listed.code == 1
    assert ckpt("ls", tmp_path, "--json").json["checkpoints"][0]["state"] == "other format"
    assert f"other format: {words}" in ckpt("show", tmp_path, "--step", 20).out
    verified = ckpt("verify", tmp_path)
    assert f"step-00000020  other format: {words}" in verified.out
    assert verified.out.endswith("1 checkpoint verified, none damaged, 1 of another format not verified\n")
    assert verified.code == 1
    assert f"stays, other format: {words}" in ckpt("prune", tmp_path, "--keep-last", 1, "--dry-run").out
    refused = ckpt("convert", tmp_path, tmp_path / "m.safetensors", "--step", 20)
    assert (refused.code, words in refused.err) == (2, True)


@pytest.mark.parametrize("command", [["show"], ["show", "--json"], ["convert", "m.safetensors"]])
def test_a_newer_one_that_is_passed_over_is_named_on_stderr(tmp_path, ckpt, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, 5, [model()])
    write(tmp_path, 10, [model()])
    later_format(tmp_path, 20)
    write(tmp_path, 30, [model()])
    record = tmp_path / "step-00000030" / MANIFEST
    record.write_bytes(record.read_bytes()[:-5])
    answer = ckpt(command[0], tmp_path, *command[1:])
    assert answer.code == 0
    assert "step-00000010" in answer.out
    assert answer.err.splitlines() == [
        "dtk ckpt: step-00000030 is passed over, damaged: manifest.json: the manifest does not match its own digest",
        "dtk ckpt: step-00000020 is passed over, other format: checkpoint format 2; this version of dist-toolkit "
        "reads format 1: update dist-toolkit",
    ]
    assert ckpt("show", tmp_path, "--step", 10).err == ""


def test_ls_of_whole_checkpoints_is_fine(tmp_path, ckpt):
    write(tmp_path, 1, [model()])
    assert ckpt("ls", tmp_path).code == 0


def test_show_takes_the_newest_with_a_whole_record(tmp_path, ckpt, golden):
    every_state(tmp_path)
    (tmp_path / "step-00000030" / MANIFEST).unlink()
    answer = ckpt("show", tmp_path)
    golden("checkpoint/show.txt", answer.out)
    assert answer.code == 0


def test_show_json_has_every_tensor(tmp_path, ckpt):
    every_state(tmp_path)
    shown = ckpt("show", tmp_path, "--step", 20, "--json").json
    assert shown["tensors"]["rng.1"] == {"dtype": "U8", "shape": [5], "size": 5, "chunks": 1}
    assert len(shown["tensors"]) == 9
    assert (shown["token"], shown["values"]) == ("0123456789abcdef", VALUES)


def test_show_one_by_its_path_even_renamed(tmp_path, ckpt):
    every_state(tmp_path)
    assert "set aside" in ckpt("show", tmp_path / "step-00000050.aside").out
    (tmp_path / "step-00000010").rename(tmp_path / "best")
    assert ckpt("show", tmp_path / "best" / "", "--json").json["step"] == 10
    damaged = ckpt("show", tmp_path, "--step", 40)
    assert (damaged.code, "does not match its own digest" in damaged.out) == (1, True)


def test_the_tree_folds_what_is_alike_and_cuts_what_is_long(tmp_path):
    tensors = write(tmp_path, 1, [{**model(layers=12), **{f"loader.part{n}": whole(n) for n in range(30)}}]).tensors
    root = tree.build(tensors)
    short = tree.to_lines(root, 3, everything=False)
    assert ["layers.{0..11}.", "24", "tensors", "768", "B"] in [line.split() for line in short]
    assert any("... 18 more (--all)" in line and "18 tensors" in line for line in short)
    full = tree.to_lines(root, None, everything=True)
    assert sum(" U8 [" in line for line in full) == len(tensors) == root.count
    assert not any("{" in line or "more" in line for line in full)


def test_a_name_that_is_also_a_prefix_is_shown_as_both(tmp_path):
    tensors = write(tmp_path, 1, [{"a": whole(3), "a.b": whole(2), "a.c": whole(1)}]).tensors
    lines = [line.split() for line in tree.to_lines(tree.build(tensors), 3, everything=False)]
    assert lines == [
        ["a", "U8", "[3]", "3", "B"], ["a.", "2", "tensors", "3", "B"],
        ["b", "U8", "[2]", "2", "B"], ["c", "U8", "[1]", "1", "B"],
    ]  # fmt: skip


@pytest.mark.parametrize(
    "fields",
    [{"step": "7"}, {"created": 3}, {"metrics": {"loss": "low"}}, {"world_size": None},
     {"producer": {"torch": 2}}],
)  # fmt: skip
def test_a_record_that_is_well_signed_and_of_wrong_types_is_damaged(tmp_path, fields):
    manifest: Manifest = replace(write(tmp_path, 7, [model()]), **fields)
    (tmp_path / "step-00000007" / MANIFEST).write_bytes(manifest.encode())
    assert "of another type" in read(LocalStorage(tmp_path), "step-00000007").damage


def test_numbers_for_people():
    texts = [size_text(n) for n in (0, 1023, 1024, 1024**2 - 1, 1288490189, 5 * 1024**4)]
    assert texts == ["0 B", "1023 B", "1.0 KiB", "1.0 MiB", "1.2 GiB", "5.0 TiB"]
    assert when_text("2026-01-01T01:30:00+02:00") == "2025-12-31 23:30:00 UTC"
    assert when_text("yesterday\n") == "yesterday\\n"
    assert printable("model.\x1b[31mw") == "model.\\x1b[31mw"


def test_colours_are_for_terminals_without_no_color(monkeypatch):
    class Screen:
        def isatty(self):
            return True

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert style_of(Screen()).bad("x") == "\x1b[31mx\x1b[0m"
    monkeypatch.setenv("NO_COLOR", "1")
    assert style_of(Screen()).bad("x") == "x"
