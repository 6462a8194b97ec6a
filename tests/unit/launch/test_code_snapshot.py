"""The copy of the code that a job runs from, from real trees."""

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from dtk_launch import code_files, rerun, submitted
from dtk_launch.code_snapshot import make, plan_code
from dtk_launch.errors import PlanError, SubmitError
from dtk_launch.jobs import submit
from dtk_launch.options import SubmitOptions

from tests.git_tree import git

pytestmark = pytest.mark.usefixtures("own_git")


def write(root, **files):
    """Files by name, `__` for a slash and `_dot_` for a dot."""
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.fixture
def tree(tmp_path):
    """A repository with one commit, a change, an untracked and an ignored file each."""
    root = tmp_path / "my project"
    write(
        root, sub__train_dot_py="x = 1\n", lib_dot_py="y = 1\n", gone_dot_py="", _dot_gitignore="data/\n*.bin\n/cc.*\n"
    )
    git(root.parent, "init", "-q", str(root))
    git(root, "add", ".")
    git(root, "commit", "-qm", "first")
    write(root, lib_dot_py="y = 2\n", new_dot_py="z = 1\n", data__big_dot_txt="many", cc_dot_so="compiled")
    (root / "gone.py").unlink()
    return root


def plan(root, script="sub/train.py", cwd=None, run_dir=None, paths=(), python_path="", **given):
    cwd = cwd or root
    options = SubmitOptions(script=str(script), snapshot=True, **given)
    return plan_code(options, cwd, run_dir or cwd / "runs" / "train", {"PYTHONPATH": python_path}, paths)


def taken(*args, **given):
    code = plan(*args, **given)
    make(code, SubmitOptions(script=code.script, snapshot=True), {})
    return code


def names(folder):
    """What is in a folder, without following links."""
    return sorted(
        str((Path(top) / name).relative_to(folder))
        for top, folders, files in os.walk(folder)
        for name in (*files, *(f for f in folders if (Path(top) / f).is_symlink()))
    )


def refused(*args, **given):
    with pytest.raises(PlanError) as caught:
        taken(*args, **given)
    return str(caught.value)


def test_it_is_the_tree_as_it_is_and_links_to_what_is_ignored(tree):
    code = taken(tree)
    assert names(code.tree) == [".gitignore", "cc.so", "data", "lib.py", "new.py", "runs", "sub/train.py"]
    assert (code.tree / "lib.py").read_text() == "y = 2\n"
    assert os.readlink(code.tree / "data") == str(tree / "data")
    assert os.readlink(code.tree / "runs") == str(tree / "runs")
    assert not (code.tree / "cc.so").is_symlink()
    assert (code.folder, code.script, code.workdir) == (tree / "runs/train/snapshots/1", "sub/train.py", code.tree)
    assert git(tree, "status", "--porcelain", "-uall") == "D gone.py\n M lib.py\n?? new.py"


def test_each_submission_has_its_own(tree):
    first = taken(tree)
    write(tree, lib_dot_py="y = 3\n", gone_dot_py="back")
    second = taken(tree)
    assert second.folder.name == "2"
    assert [(code.tree / "lib.py").read_text() for code in (first, second)] == ["y = 2\n", "y = 3\n"]
    assert names(second.folder.parent)[0] == ".gitignore"
    assert not [path for path in first.folder.parent.iterdir() if path.name.endswith(".partial")]


def test_the_record_is_that_of_the_tree_it_was_made_from(tree):
    code = taken(tree)
    write(tree, lib_dot_py="y = 4\n")
    record = submitted.record_of(code.tree / "sub")
    assert (record["root"], record["commit"]) == (str(tree), git(tree, "rev-parse", "HEAD"))
    assert "+y = 2" in record["diff"]
    assert record["untracked"] == {"new.py": "z = 1\n"}
    assert record["snapshot"] == str(code.tree)
    assert submitted.record_of(tree) is None
    (code.folder / "snapshot.json").write_text("{")
    assert "cannot be read" in submitted.record_of(code.tree)["why"]


def test_modes_times_links_and_names_are_kept(tree, tmp_path):
    write(tree, run_dot_sh="#!/bin/sh\n")
    (tree / "run.sh").chmod(0o755)
    os.utime(tree / "run.sh", (1_000_000_000, 1_000_000_000))
    (tmp_path / "outside").mkdir()
    for name, text in {
        "in": "sub/train.py",
        "absolute": str(tree / "lib.py"),
        "out": "../outside",
        "sub/out": "../../outside",
        "broken": "nowhere",
    }.items():
        (tree / name).symlink_to(text)
    odd = os.fsdecode(b"caf\xe9 \n$(x).py")
    (tree / odd).write_text("odd")
    code = taken(tree)
    status = (code.tree / "run.sh").stat()
    assert (status.st_mode & 0o777, status.st_mtime) == (0o755, 1_000_000_000)
    links = ("in", "absolute", "out", "sub/out", "broken")
    outside = str(tmp_path / "outside")
    assert [os.readlink(code.tree / name) for name in links] == ["sub/train.py", "lib.py", outside, outside, "nowhere"]
    assert (code.tree / odd).read_text() == "odd"


def test_without_a_repository_it_is_the_folder_of_the_script(tmp_path):
    root = tmp_path / "plain"
    write(root, other_dot_py="", p__train_dot_py="", p__lib_dot_py="", p__data__x="", p___dot_gitignore="data\n")
    code = taken(root, "p/train.py")
    assert names(code.tree) == [".gitignore", "data", "lib.py", "train.py"]
    assert (code.script, code.workdir) == (str(code.tree / "train.py"), root)
    code = taken(root, "train.py", cwd=root / "p")
    assert (code.script, code.workdir) == ("train.py", code.tree)
    assert "runs" in names(code.tree)
    assert not (root / ".git").exists()
    assert "not a git repository" in submitted.record_of(code.tree)["why"]


def test_from_a_folder_of_the_tree_and_by_other_paths(tree, tmp_path):
    code = plan(tree, "train.py", cwd=tree / "sub")
    assert (code.script, code.workdir) == ("train.py", code.tree / "sub")
    assert plan(tree, "../lib.py", cwd=tree / "sub").script == "../lib.py"
    code = plan(tree, tree / "lib.py")
    assert (code.script, code.workdir) == (str(code.tree / "lib.py"), code.tree)
    code = plan(tree, "sub.train", module=True)
    assert (code.script, code.workdir) == ("sub.train", code.tree)
    code = plan(tree, "my project/lib.py", cwd=tmp_path)
    assert (code.script, code.workdir) == (str(code.tree / "lib.py"), tmp_path)
    code = plan(tree, "../my project/lib.py")
    assert code.script == "../my project/lib.py" or Path(code.script) == code.tree / "lib.py"
    (tmp_path / "link").symlink_to(tree)
    assert plan(tree, tmp_path / "link" / "lib.py").script == str(code.tree / "lib.py")
    (tree / "empty").mkdir()
    assert taken(tree, "../lib.py", cwd=tree / "empty").workdir.is_dir()


def test_a_script_that_it_would_not_hold_is_refused(tree, tmp_path):
    write(tmp_path, other__train_dot_py="", elsewhere_dot_py="")
    write(tree, data__train_dot_py="")
    assert "is outside of it" in refused(tree, tmp_path / "elsewhere.py")
    assert "it is in data, which is ignored" in refused(tree, "data/train.py")
    assert "outside of it" in refused(tree, "json.tool", module=True)
    (tree / "away.py").symlink_to(tmp_path / "elsewhere.py")
    assert "elsewhere.py is outside of it" in refused(tree, "away.py")
    assert not (tree / "runs").exists()


def test_without_git_or_where_git_refuses_it_says_so(tree, monkeypatch):
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    assert "dubious ownership" in refused(tree)
    monkeypatch.setenv("PATH", "/nonexistent")
    assert "git is not on PATH" in refused(tree)


def test_what_is_too_large_is_named_and_nothing_is_written(tree, monkeypatch):
    write(tree, model_dot_pt="0" * 5000, sub__other_dot_pt="0" * 3000)
    monkeypatch.setattr(code_files, "MAX_BYTES", 4096)
    said = refused(tree)
    assert "limit is 4 KB; the largest are 'model.pt' (5 KB), 'sub/other.pt' (3 KB)" in said
    assert ".gitignore" in said
    monkeypatch.setattr(code_files, "MAX_BYTES", 1 << 20)
    monkeypatch.setattr(code_files, "MAX_FILES", 5)
    assert "limit is 5; most are in '.' (5), 'sub' (2)" in refused(tree)
    assert not (tree / "runs").exists()


def test_runs_environments_and_caches_are_not_copied(tree):
    write(
        tree,
        env__pyvenv_dot_cfg="",
        env__lib__x_dot_py="",
        sub____pycache____train_dot_pyc="",
        o__r__plan_dot_json="{}",
    )
    (tree / "o/r/ranks").mkdir()
    write(tree, o__r__code_dot_py="", o__mine_dot_py="", runs__other__job_dot_sbatch="", runs___dot_gitkeep="")
    code = taken(tree)
    assert code.files.links == ("data", "env", "o/r", "runs")
    assert "o/mine.py" in code.files.files
    assert "pycache" not in "".join(names(code.tree))


def test_a_run_directory_beside_code_is_linked_alone(tree):
    write(tree, runs__plot_dot_py="")
    code = taken(tree)
    assert code.files.links == ("data", "runs/train")
    assert "runs/plot.py" in code.files.files
    assert taken(tree, run_dir=tree / "out").files.links == ("data", "out", "runs/train")


def test_submodules_and_repositories_inside_are_copied_too(tree, tmp_path):
    other = tmp_path / "other"
    write(other, __init___dot_py="", _dot_gitignore="*.bin\n", deep__a_dot_py="1")
    git(tmp_path, "init", "-q", str(other))
    git(other, "add", ".")
    git(other, "commit", "-qm", "first")
    git(tree, "-c", "protocol.file.allow=always", "submodule", "add", "-q", str(other), "vendored")
    write(tree, vendored__new_dot_py="dirty", vendored__x_dot_bin="ignored")
    git(tmp_path, "clone", "-q", str(other), str(tree / "cloned"))
    code = taken(tree)
    found = names(code.tree)
    assert {"vendored/deep/a.py", "vendored/new.py", "vendored/x.bin", "cloned/deep/a.py"} <= set(found)
    assert (code.tree / "vendored/x.bin").is_symlink()
    assert not [name for name in found if ".git/" in name]
    git(tree, "submodule", "deinit", "-q", "-f", "vendored")
    assert (taken(tree).tree / "vendored").is_dir()


def test_a_file_that_vanishes_is_left_out_and_one_that_cannot_be_read_is_named(tree, monkeypatch):
    code = plan(tree)
    (tree / "new.py").unlink()
    make(code, SubmitOptions(script="sub/train.py"), {})
    assert "new.py" not in names(code.tree)
    code = plan(tree)
    (tree / "sub" / "train.py").unlink()
    with pytest.raises(PlanError, match=r"train\.py was removed while it was copied"):
        make(code, SubmitOptions(script="sub/train.py"), {})
    assert [path.name for path in sorted(code.folder.parent.iterdir())] == [".gitignore", "1"]
    write(tree, sub__train_dot_py="")
    (tree / "lib.py").unlink()
    real = Path.open
    monkeypatch.setattr(
        Path, "open", lambda self, *a, **b: denied() if self == tree / ".gitignore" else real(self, *a, **b)
    )
    assert ".gitignore: Permission denied; make it readable" in refused(tree)
    assert [path.name for path in sorted(code.folder.parent.iterdir())] == [".gitignore", "1"]


def denied():
    raise PermissionError(13, "Permission denied")


def test_two_at_the_same_time_do_not_mix(tree):
    first, second = plan(tree), plan(tree)
    make(first, SubmitOptions(script="sub/train.py"), {})
    with pytest.raises(PlanError, match="cannot be written"):
        make(second, SubmitOptions(script="sub/train.py"), {})
    (first.folder.parent / ".2.partial").mkdir()
    assert plan(tree).folder.name == "3"
    with pytest.raises(PlanError, match="another dtk submit"):
        make(replace_folder(first, "2"), SubmitOptions(script="sub/train.py"), {})


def replace_folder(code, name):
    return replace(code, folder=code.folder.with_name(name))


def test_imports_come_from_the_copy(tree, tmp_path):
    write(tree, src__pkg____init___dot_py="", data__x_dot_py="")
    there = tree / "runs/train/snapshots/1/tree"
    assert plan(tree).setup == ()
    paths = (str(tree / "src"), "/usr/lib", str(tree / "data"), str(tree / "nothing"), "relative")
    code = plan(tree, python_path=f"{tree}:/other:.", paths=paths, env=(f"PYTHONPATH=/a:{tree}/src", "A=1"))
    (line,) = code.setup
    printed = subprocess.run(
        ("bash", "-c", f'{line}\nprintf %s "$PYTHONPATH"'), env={"PYTHONPATH": "/x"}, capture_output=True, text=True
    ).stdout
    assert printed == f"{there}:{there}/src:/x"
    assert code.env == (f"PYTHONPATH=/a:{there}/src", "A=1")


def test_what_snapshot_json_says(tree):
    code = taken(tree)
    values = json.loads((code.folder / "snapshot.json").read_text())
    assert {key: values[key] for key in ("format", "root", "files", "links")} == {
        "format": 1,
        "root": str(tree),
        "files": 5,
        "links": ["data", "runs"],
    }


def submitted_dry(facts, tree, capsys, **given):
    options = SubmitOptions(script="sub/train.py", snapshot=True, dry_run=True, **given)
    submit(options, replace(facts(), cwd=tree))
    return capsys.readouterr().out


def test_the_job_starts_in_it_and_a_dry_run_copies_nothing(facts, tree, capsys):
    there = tree / "runs/train/snapshots/1/tree"
    text = submitted_dry(facts, tree, capsys)
    assert f"#SBATCH --chdir='{there}'\n" in text
    assert f"--run-dir '{tree}/runs/train' sub/train.py" in text
    assert "-- sub/train.py" in submitted_dry(facts, tree, capsys, plain=True)
    assert not (tree / "runs").exists()


def test_a_container_has_it_and_what_its_links_lead_to(facts, tmp_path, capsys):
    root = tmp_path / "project"
    write(root, sub__train_dot_py="")
    there = tmp_path / "scratch/run"
    text = submitted_dry(facts, root, capsys, run_dir=str(there), container_image="x.sif", container_mounts="/d:/d")
    mounts = f"{root}:{root},{there}:{there},/d:/d,{root}/sub:{root}/sub"
    assert f"--bind {mounts} --pwd {root} x.sif" in text
    assert text.rstrip().endswith(f" {there}/snapshots/1/tree/train.py")


def test_a_rerun_of_its_run_starts_in_it_or_in_the_tree_restored(tree):
    code = taken(tree)
    values = {"cwd": str(code.tree / "sub"), "tree": submitted.record_of(code.tree)}
    values |= {"options": {"script": "train.py"}, "environment": {}}
    assert rerun.moved(values, Path("/new"))["cwd"] == "/new/sub"
    absolute = {**values, "options": {"script": str(code.tree / "lib.py")}}
    assert rerun.moved(absolute, Path("/new"))["options"]["script"] == "/new/lib.py"


@pytest.mark.parametrize(
    ("sbatch", "said", "kept"),
    [("echo 'no such account' >&2; exit 1", "refused the job", False), ("echo thanks", "printed no job id", True)],
)
def test_only_a_job_that_was_refused_takes_its_snapshot_along(facts, tree, tmp_path, monkeypatch, sbatch, said, kept):
    write(tmp_path, bin__sbatch=f'#!/bin/sh\ncase "$1" in --test-only) exit 0;; esac\n{sbatch}\n')
    (tmp_path / "bin" / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    with pytest.raises(SubmitError, match=said):
        submit(SubmitOptions(script="sub/train.py", snapshot=True), replace(facts(), cwd=tree))
    assert (tree / "runs/train/snapshots/1/tree/sub/train.py").exists() == kept
