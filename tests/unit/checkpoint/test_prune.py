"""`dtk ckpt prune`, on checkpoints made up."""

from __future__ import annotations

import os

import pytest

from dist_toolkit.checkpoint.layout import MANIFEST
from dist_toolkit.checkpoint.tool import app
from tests.unit.checkpoint.made_up import model, write


@pytest.fixture
def root(tmp_path):
    for step in (10, 20, 30, 40, 50):
        write(tmp_path, step, [model()], metrics={"accuracy": 1 / step})
    return tmp_path


def left(root):
    return sorted(path.name.removeprefix("step-000000") for path in root.iterdir())


def test_dry_run_says_and_deletes_nothing(root, ckpt, golden):
    answer = ckpt("prune", root, "--keep-last", 1, "--keep-every", 20, "--dry-run")
    golden("checkpoint/prune.txt", answer.out)
    assert answer.code == 0
    assert left(root) == ["10", "20", "30", "40", "50"]


def test_rules_of_retention(root, ckpt):
    answer = ckpt("prune", root, "--keep-last", 1, "--keep-every", 20, "--keep-best", "max:accuracy", "--yes", "--json")
    assert (answer.code, answer.json["deleted"]) == (0, ["step-00000030"])
    assert left(root) == ["10", "20", "40", "50"]
    assert ckpt("prune", root, "--keep-last", 1, "--keep-best", "min:accuracy", "--yes").code == 0
    assert left(root) == ["50"]
    assert "nothing to delete" in ckpt("prune", root, "--keep-last", 1).out


def test_nothing_goes_without_yes_where_nobody_can_answer(root, ckpt):
    for extra in ([], ["--json"]):
        answer = ckpt("prune", root, "--keep-last", 1, *extra)
        assert (answer.code, "pass --yes" in answer.err, answer.out) == (2, True, "")
    assert len(left(root)) == 5


@pytest.mark.parametrize(("word", "rest"), [("y", ["50"]), ("n", ["10", "20", "30", "40", "50"])])
def test_a_person_is_asked(root, ckpt, monkeypatch, word, rest):
    monkeypatch.setattr(app, "can_ask", lambda: True)
    asked = []
    monkeypatch.setattr(app, "ask", lambda question: asked.append(question) or word == "y")
    assert ckpt("prune", root, "--keep-last", 1).code == 0
    assert asked[0].startswith("delete 4 checkpoints (")
    assert left(root) == rest


def test_damaged_and_aside_neither_go_nor_count(root, ckpt):
    (root / "step-00000050" / "rank-00000.safetensors").unlink()
    edited = root / "step-00000010" / MANIFEST
    edited.write_bytes(edited.read_bytes().replace(b"accuracy", b"accuracz"))
    write(root, 60, [model()], folder="step-00000060.aside")
    answer = ckpt("prune", root, "--keep-last", 1, "--yes")
    assert answer.code == 1
    assert left(root) == ["10", "40", "50", "60.aside"]


def test_with_verify_a_flipped_bit_does_not_count_as_kept(root, ckpt):
    path = root / "step-00000050" / "rank-00000.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x00")
    answer = ckpt("prune", root, "--keep-last", 1, "--verify", "--yes")
    assert (answer.code, "model.norm" in answer.out) == (1, True)
    assert left(root) == ["40", "50"]


def test_one_saved_anew_in_the_meantime_stays(root, ckpt, monkeypatch):
    monkeypatch.setattr(app, "can_ask", lambda: True)

    def saved_anew(question):
        (root / "step-00000010" / MANIFEST).write_bytes(b"another record")
        return True

    monkeypatch.setattr(app, "ask", saved_anew)
    assert "1 changed in the meantime" in ckpt("prune", root, "--keep-last", 1).out
    assert left(root) == ["10", "50"]


def test_what_a_killed_deletion_left_is_no_obstacle(root, ckpt):
    os.mkdir(root / "step-00000010.del")
    assert ckpt("prune", root, "--keep-last", 4, "--yes").code == 0
    assert left(root) == ["20", "30", "40", "50"]


@pytest.mark.parametrize(
    ("words", "said"),
    [(["--keep-last", "0"], "--keep-last 0 is not a positive number"),
     (["--keep-last", "1", "--keep-best", "max:acuracy"], "'acuracy'; there are: accuracy"),
     (["--keep-last", "1", "--keep-best", "most:accuracy"], "write max:METRIC or min:METRIC"),
     ([], "--keep-last")],
)  # fmt: skip
def test_rules_that_cannot_be_are_refused(root, ckpt, words, said):
    answer = ckpt("prune", root, *words, "--yes")
    assert (answer.code, said in answer.err) == (2, True), answer.err
    assert len(left(root)) == 5
