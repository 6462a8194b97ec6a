"""From a record to the launch that does the same again; and the recorded tree, made again."""

import json
import subprocess
from pathlib import Path

import pytest
from dtk_launch import rerun, restore, snapshot
from dtk_launch.errors import PlanError
from dtk_launch.redaction import MARK

VALUES = {
    "format": 1, "cwd": "/w", "name": "train", "target": {}, "topology": {"nodes": 1, "nproc": 3}, "env": {},
    "environment": {}, "versions": {}, "host": {}, "script": {}, "tree": {"root": "/w"},
    "options": {
        "script": "train.py", "args": ["--lr", "1"], "nproc": "auto", "strategy": "ddp", "env": ["A=1"], "name": "",
        "run_dir": "", "module": False, "dry_run": True, "json": True, "profile": "big", "of a later version": 1,
    },
}  # fmt: skip
FOLDER = Path("/w/runs/train")


def again(options=None, environ=None, **given):
    return rerun.settings(VALUES | {"options": VALUES["options"] | (options or {})}, FOLDER, given, environ or {})


def test_the_options_are_those_that_were_resolved_and_the_run_goes_on():
    settings = again()
    options = settings.options
    assert (options.script, options.args, options.nproc, options.nodes) == ("train.py", ("--lr", "1"), "3", "1")
    assert (options.strategy, options.env, options.dry_run, options.json) == ("ddp", ("A=1",), False, False)
    assert (options.name, options.run_dir) == ("train", "/w/runs/train")
    assert settings.sources["strategy"] == "/w/runs/train/plan.json"
    assert settings.sources["max_restarts"] == "default"


def test_nodes_are_those_that_were_asked_for_or_found():
    assert again({"nodes": "1:4"}).options.nodes == "1:4"
    found = rerun.settings(VALUES | {"topology": {"nodes": 2, "nproc": 3}}, FOLDER, {}, {})
    assert found.options.nodes == "2"


def test_what_is_given_now_wins():
    settings = again(nproc="2", env=("B=2", "A=3"), args=("--lr", "2"))
    assert (settings.options.nproc, settings.sources["nproc"]) == ("2", "flag --nproc")
    assert (settings.options.env, settings.options.args) == (("A=1", "B=2", "A=3"), ("--lr", "2"))


def test_another_name_is_another_folder():
    assert (again(name="new").options.name, again(name="new").options.run_dir) == ("new", "")
    assert again(name="new", run_dir="/x").options.run_dir == "/x"


def test_a_secret_variable_is_that_of_the_present_environment():
    hidden = {"env": [f"HF_TOKEN={MARK}", "A=1"]}
    assert again(hidden, {"HF_TOKEN": "mine"}).options.env == ("HF_TOKEN=mine", "A=1")
    with pytest.raises(PlanError, match="--env HF_TOKEN was a secret"):
        again(hidden)


def test_a_secret_argument_has_to_be_given_again():
    hidden = {"args": ["--token", MARK]}
    with pytest.raises(PlanError, match=r"argument 2 .* dtk rerun train -- ARGS"):
        again(hidden)
    assert again(hidden, args=("--token", "x")).options.args == ("--token", "x")


@pytest.fixture
def runs(tmp_path):
    for name in ("first", "second"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "plan.json").write_text(json.dumps(VALUES))
    return tmp_path


@pytest.mark.parametrize(
    ("text", "said"),
    [("{", "cannot be read"), ("[]", "an older dtk"), ('{"command": ""}', "an older dtk"), (None, "format 2")],
)
def test_a_record_that_is_none(runs, text, said):
    (runs / "runs/first/plan.json").write_text(json.dumps(VALUES | {"format": 2}) if text is None else text)
    with pytest.raises(PlanError, match=said):
        rerun.load(runs / "runs/first")


def test_in_a_restored_tree_folder_and_script_are_those_of_the_tree():
    inside = VALUES | {"cwd": "/w/sub", "options": VALUES["options"] | {"script": "/w/sub/t.py"}}
    there = rerun.moved(inside, Path("/new"))
    assert (there["cwd"], there["options"]["script"]) == ("/new/sub", "/new/sub/t.py")
    with pytest.raises(PlanError, match="outside its tree"):
        rerun.moved(VALUES | {"cwd": "/elsewhere"}, Path("/new"))


COPY = "/w/runs/train/snapshots/1/tree"


@pytest.mark.parametrize(
    ("recorded", "present", "expected"),
    [
        (f"{COPY}/src:{COPY}:/opt/lib", "", f"{COPY}/src:{COPY}"),  # what is not of the copy is the shell's
        (f"{COPY}/src:/w/src", "/w/src:/mine", f"{COPY}/src:/w/src:/mine"),
        (f"{COPY}/src", f"/mine:{COPY}/src", f"{COPY}/src:/mine"),
        (f"{COPY}-other:/w:<5000 characters, left out>", "/mine", "/mine"),
        ("", "", ""),
    ],
)
def test_a_run_of_a_snapshot_imports_from_it_again(recorded, present, expected):
    assert rerun.import_path(recorded, Path(COPY), present) == expected


def test_in_a_restored_tree_a_run_of_a_snapshot_imports_from_there():
    values = VALUES | {
        "cwd": f"{COPY}/sub",
        "tree": {"root": "/w", "snapshot": COPY},
        "environment": {"PYTHONPATH": f"{COPY}/src:/opt/lib", "HOME": "/h"},
        "options": VALUES["options"] | {"env": [f"PYTHONPATH={COPY}:/x", f"DATA={COPY}"]},
    }
    there = rerun.moved(values, Path("/new"))
    assert there["cwd"] == "/new/sub"
    assert there["environment"] == {"PYTHONPATH": "/new/src:/opt/lib", "HOME": "/h"}
    assert there["options"]["env"] == ["PYTHONPATH=/new:/x", f"DATA={COPY}"]


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A repository with a change, a binary change and an untracked file, and its record."""
    for name in ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"):
        monkeypatch.setenv(name, "/dev/null")
    root = tmp_path / "project"
    (root / "pkg").mkdir(parents=True)
    for name in ("a.py", "gone.py", "b.bin"):
        (root / "pkg" / name).write_bytes(b"1\n")
    who = ("-c", "user.name=a", "-c", "user.email=a@b")
    for words in (("init", "-q"), ("add", "."), (*who, "commit", "-qm", "first")):
        subprocess.run(("git", "-C", str(root), *words), check=True)
    (root / "pkg" / "a.py").write_bytes(b"x = '\xc3\xa9'  \n")
    (root / "pkg" / "gone.py").unlink()
    (root / "pkg" / "b.bin").write_bytes(bytes(range(256)))
    (root / "new").mkdir()
    (root / "new" / "c.py").write_text("c = 1\n")
    return root


def contents(folder):
    files = (path for path in folder.rglob("*") if path.is_file() and ".git" not in path.relative_to(folder).parts)
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def taken(root):
    return snapshot.take(root, root / "runs", None)


def test_the_tree_is_restored_byte_for_byte_and_its_record_is_the_same(tree, tmp_path):
    values = taken(tree)
    assert restore.restore(values, tmp_path / "copy") == ()
    assert contents(tmp_path / "copy") == contents(tree)
    again = taken(tmp_path / "copy")
    assert {**again, "root": ""} == {**values, "root": ""}


def test_what_is_not_as_it_was_is_said(tree, tmp_path):
    (tree / "conf.toml").write_text('password = "abcdefgh"\n')
    (tree / "data.npz").write_bytes(b"1")
    notes = restore.restore(taken(tree), tmp_path / "copy")
    assert notes == (
        "left out of the record: data.npz: not source, by its suffix",
        f"conf.toml holds {MARK} for a secret",
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"diff_digest": None, "left_out": ["diff: too large"]}, "diff: too large"),
        ({"commit": None}, "no commit"),
        ({"commit": "--upload-pack=x"}, "no commit"),
        ({"commit": "f" * 40}, "git worktree failed"),
        ({"root": "/nowhere/at/all"}, "is not there"),
        ({"untracked": {"../x": "1"}}, "not inside the tree"),
        ({"untracked": {"/x": "1"}}, "not inside the tree"),
        ({"untracked": {".git/hooks/post-checkout": "1"}}, "not inside the tree"),
        ({"diff": "garbage"}, "git apply failed"),
    ],
)
def test_what_cannot_be_restored_is_refused(tree, tmp_path, change, said):
    with pytest.raises(PlanError, match=said):
        restore.restore(taken(tree) | change, tmp_path / "copy")
    assert not (tmp_path / "x").exists()
    assert not (tmp_path / "copy").exists()
    assert len(list((tree / ".git").glob("worktrees/*"))) == 0


def test_a_folder_that_is_in_use_is_left_alone(tree, tmp_path):
    (tmp_path / "mine").touch()
    with pytest.raises(PlanError, match="is not empty"):
        restore.restore(taken(tree), tmp_path)
