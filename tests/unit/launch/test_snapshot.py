"""The source tree as it is recorded, from real repositories."""

import os
import subprocess
import time

import pytest
from dtk_launch import snapshot
from dtk_launch.redaction import MARK

from tests.git_tree import git

pytestmark = pytest.mark.usefixtures("own_git")


@pytest.fixture
def tree(tmp_path):
    """A repository with one commit, and `take` for it."""
    root = tmp_path / "project"
    (root / "pkg").mkdir(parents=True)
    (root / "pkg" / "train.py").write_text("x = 1\n")
    (root / ".gitignore").write_text("ignored*\n")
    git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "commit", "-qm", "first")
    return root


def take(root, known=()):
    return snapshot.take(root / "pkg", root / "out", root / "pkg" / "train.py", known)


def test_a_clean_tree_is_its_commit(tree):
    taken = take(tree)
    assert taken["commit"] == git(tree, "rev-parse", "HEAD")
    assert taken["root"] == str(tree)
    assert (taken["changed"], taken["diff"], taken["untracked"], taken["left_out"]) == ([], "", {}, [])


def test_changes_staged_and_not_and_untracked_source(tree):
    (tree / "pkg" / "train.py").write_text("x = 2  # größer\n")
    (tree / "staged é.py").write_text("y = 1\n")
    git(tree, "add", "staged é.py")
    (tree / "new").mkdir()
    (tree / "new" / "a b.toml").write_text("z = 1\n")
    (tree / "ignored.py").write_text("no\n")
    taken = take(tree)
    assert taken["changed"] == ["pkg/train.py", "staged é.py"]
    assert "+x = 2  # größer\n" in taken["diff"]
    assert "+y = 1\n" in taken["diff"]
    assert taken["untracked"] == {"new/a b.toml": "z = 1\n"}
    assert take(tree)["diff_digest"] == taken["diff_digest"]
    (tree / "staged é.py").write_text("y = 2\n")
    assert take(tree)["diff_digest"] != taken["diff_digest"]


def test_files_that_hold_secrets_are_named_and_left_out(tree):
    (tree / ".env").write_text("A=tracked-before\n")
    git(tree, "add", "-f", ".env")
    git(tree, "commit", "-qm", "a mistake")
    (tree / ".env").write_text("A=hush-tracked\n")
    (tree / "pkg" / "train.py").write_text("x = 3\n")
    for name in (".env.local", "prod.ENV", "id_rsa", "server.pem", "secrets.yaml", "kaggle.json"):
        (tree / name).write_text("A=hush\n")
    (tree / "secrets.py").write_text("x = 1\n")
    taken = take(tree)
    assert "hush" not in str(taken)
    assert "+x = 3" in taken["diff"]
    assert list(taken["untracked"]) == ["secrets.py"]
    names = {line.partition(": ")[0] for line in taken["left_out"]}
    assert names == {".env", ".env.local", "prod.ENV", "id_rsa", "server.pem", "secrets.yaml", "kaggle.json"}


def test_known_secrets_and_literals_are_hidden_in_the_diff_and_in_files(tree):
    (tree / "pkg" / "train.py").write_text('x = 1\nuse("my-very-own-7")\napi_key = "abcd1234efgh"\n')
    (tree / "conf.yaml").write_text("token: abcd1234efgh\nurl: https://u:pw@h/x\n")
    taken = take(tree, ["my-very-own-7"])
    assert taken["diff"].count(MARK) == 2
    assert taken["untracked"]["conf.yaml"] == f"token: {MARK}\nurl: https://{MARK}@h/x\n"
    for secret in ("my-very-own-7", "abcd1234efgh", "u:pw"):
        assert secret not in str(taken)


def test_what_is_too_large_is_named_and_the_rest_is_taken(tree, monkeypatch):
    monkeypatch.setattr(snapshot, "DIFF_BYTES", 4000)
    monkeypatch.setattr(snapshot, "FILE_BYTES", 100)
    monkeypatch.setattr(snapshot, "ALL_FILES_BYTES", 150)
    (tree / "data.csv").write_text("")
    git(tree, "add", ".")
    (tree / "data.csv").write_text("1\n" * 4000)
    (tree / "pkg" / "train.py").write_text("x = 4\n")
    for name, size in (("a.py", 101), ("b.py", 90), ("c.py", 90), ("d.bin", 5), ("e.py", 60)):
        (tree / name).write_bytes(b"#" * size)
    (tree / "0.py").write_bytes(b"\xff")
    (tree / "g.py").symlink_to("b.py")
    taken = take(tree)
    assert "+x = 4" in taken["diff"]
    assert "data.csv" not in taken["diff"]
    assert taken["diff_digest"] is None
    assert list(taken["untracked"]) == ["b.py", "e.py"]
    said = " ".join(taken["left_out"])
    for words in (
        "diff: more than 4000 bytes",
        "a.py: 101 bytes",
        "c.py: 90 bytes came before",
        "d.bin: not source",
        "0.py: not UTF-8",
        "g.py: a link",
    ):
        assert words in said


def test_the_list_of_what_is_left_out_is_bounded(tree):
    for number in range(230):
        (tree / f"{number}.bin").touch()
    assert len(take(tree)["left_out"]) == snapshot.NAMED + 1
    assert take(tree)["left_out"][-1] == "and 30 more"


def test_run_directories_are_not_recorded(tree):
    for run in ("out", "runs/first"):
        (tree / run / "ranks").mkdir(parents=True)
        (tree / run / "plan.json").write_text("{}")
        (tree / run / "ranks" / "0.json").write_text("{}")
    (tree / "runs" / "plan.json").write_text("{}")
    assert list(take(tree)["untracked"]) == ["runs/plan.json"]


def test_a_diff_in_latin_1_can_be_applied_again(tree):
    (tree / "pkg" / "train.py").write_bytes(b"x = 1  # \xe9\n")
    taken = take(tree)
    patch = taken["diff"].encode(taken["diff_encoding"])
    git(tree, "checkout", "-q", ".")
    subprocess.run(["git", "apply"], cwd=tree, input=patch, check=True)
    assert (tree / "pkg" / "train.py").read_bytes() == b"x = 1  # \xe9\n"


def test_settings_of_the_user_change_nothing_and_nothing_is_written(tree):
    for name, value in (
        ("color.ui", "always"),
        ("diff.external", "false"),
        ("diff.noprefix", "true"),
        ("diff.relative", "true"),
    ):
        git(tree, "config", name, value)
    (tree / "pkg" / "train.py").write_text("x = 5\n")
    index = tree / ".git" / "index"
    before = (index.stat().st_mtime_ns, sorted(path.name for path in (tree / ".git").iterdir()))
    taken = take(tree)
    assert (index.stat().st_mtime_ns, sorted(path.name for path in (tree / ".git").iterdir())) == before
    assert taken["diff"].startswith("diff --git a/pkg/train.py b/pkg/train.py\n")
    assert "+x = 5" in taken["diff"]


def test_before_the_first_commit(tree, tmp_path):
    fresh = tmp_path / "fresh"
    (fresh / "pkg").mkdir(parents=True)
    (fresh / "pkg" / "train.py").write_text("x = 6\n")
    git(fresh, "init", "-q")
    taken = take(fresh)
    assert (taken["commit"], taken["diff"], taken["untracked"]) == (None, "", {"pkg/train.py": "x = 6\n"})
    git(fresh, "add", ".")
    assert "+x = 6" in take(fresh)["diff"]


def test_submodules_are_named_with_their_commits(tree, tmp_path):
    git(tree, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(tree), "sub")
    assert take(tree)["submodules"] == {"sub": git(tree, "rev-parse", "HEAD")}


def test_without_a_repository_the_script_is_recorded(tmp_path):
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg" / "train.py").write_text("x = 7\n")
    taken = take(tmp_path)
    assert "not a git repository" in taken["why"]
    assert taken["untracked"] == {"train.py": "x = 7\n"}


def test_without_git(tree, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert take(tree)["why"] == "git is not installed"


@pytest.mark.parametrize(
    "answers", ["", 'case $* in *rev-parse*) exec REAL "$@";; esac\n'], ids=["wholly", "in its diff"]
)
def test_a_git_that_takes_too_long_is_ended_and_said(tree, tmp_path, monkeypatch, answers):
    real = subprocess.run(["which", "git"], capture_output=True, text=True, check=True).stdout.strip()
    fake = tmp_path / "bin" / "git"
    fake.parent.mkdir()
    fake.write_text(f"#!/bin/sh\n{answers.replace('REAL', real)}exec sleep 600\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(snapshot, "SECONDS", (0.5, 0.5, 0.5))
    begun = time.monotonic()
    taken = take(tree)
    assert time.monotonic() - begun < 60
    assert "git took longer than 0.5 seconds" in (taken["why"] if not answers else taken["left_out"][0])
    if answers:
        assert (len(taken["commit"]), taken["diff_digest"]) == (40, None)
