"""What `dtk init` writes, and what it leaves alone."""

import re

import pytest
from dtk_launch import starter
from dtk_launch.config import resolve
from dtk_launch.errors import PlanError
from dtk_launch.options import LaunchOptions, SubmitOptions
from dtk_launch.script import check_script


def test_it_writes_a_script_and_settings_that_dtk_takes(tmp_path):
    said = starter.write(tmp_path / "a b", force=False)
    assert "cd '" in said
    assert "dtk launch --profile two --name two train.py" in said
    check_script("train.py", False, tmp_path / "a b")
    settings = resolve(LaunchOptions, {"script": "train.py", "profile": "two"}, {}, tmp_path / "a b")
    assert (settings.options.nproc, settings.options.strategy) == ("2", "ddp")


def test_what_is_commented_out_is_right_too(tmp_path):
    starter.write(tmp_path, force=False)
    file = tmp_path / "dtk.toml"
    top, _, profiles = file.read_text().partition("# [env]")
    shown = re.sub(r"(?m)^# (?=[\w-]+ = |\[)", "", top + "\n# [env]" + profiles)
    assert shown.count("\n[") == 3
    file.write_text(shown)
    options = resolve(SubmitOptions, {"script": "train.py", "profile": "cluster"}, {}, tmp_path).options
    assert (options.nodes, options.time, options.sbatch) == ("2", "04:00:00", ("constraint=a100",))
    assert (options.max_restarts, options.run_dir, options.env) == (1, "out", ("NCCL_DEBUG=WARN",))


@pytest.mark.parametrize("name", starter.FILES)
def test_nothing_is_overwritten_unless_forced(tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(PlanError, match=rf"{name} in .* --force"):
        starter.write(tmp_path, force=False)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, "mine")]
    starter.write(tmp_path, force=True)
    assert "mine" not in {(tmp_path / file).read_text() for file in starter.FILES}


def test_settings_in_pyproject_are_not_doubled(tmp_path):
    (tmp_path / "pyproject.toml").write_text("[tool.dtk]\nnproc = 2\n")
    with pytest.raises(PlanError, match=r"tool.dtk.*pyproject"):
        starter.write(tmp_path, force=False)
    assert [path.name for path in tmp_path.iterdir()] == ["pyproject.toml"]


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(PlanError, match="cannot be written"):
        starter.write(tmp_path / "file" / "below", force=False)
