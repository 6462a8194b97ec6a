import sys

import pytest
from dtk_launch.errors import PlanError
from dtk_launch.script import check_script


@pytest.fixture
def project(tmp_path):
    (tmp_path / "train.py").write_text("import sys\n")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "run.py").write_text("")
    (tmp_path / "broken.py").write_text("x = 1\ndef f(:\n")
    (tmp_path / "run.sh").write_text("#!/bin/bash\npython train.py\n")
    (tmp_path / "tool").write_text("#!/usr/bin/perl\n")
    (tmp_path / "pytool").write_text("#!/usr/bin/env python3\nprint()\n")
    (tmp_path / "binary").write_bytes(b"\x7fELF\0\0")
    package = tmp_path / "pkg"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit('imported')")
    (package / "fit.py").write_text("")
    (package / "app").mkdir()
    (package / "app" / "__init__.py").write_text("")
    (package / "app" / "__main__.py").write_text("")
    return tmp_path


@pytest.mark.parametrize("script", ["train.py", "./train.py", "pytool", "folder/run.py"])
def test_python_scripts_pass(project, script):
    check_script(script, False, project)


@pytest.mark.parametrize("module", ["train", "pkg.fit", "pkg.app", "json.tool", "folder.run"])
def test_modules_pass_and_are_not_imported(project, module):
    check_script(module, True, project)
    assert "pkg" not in sys.modules


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("tain.py", "did you mean train.py?"),
        ("folder/rn.py", "did you mean folder/run.py?"),
        ("nowhere/x.py", "no folder nowhere"),
        ("folder", "folder/run.py"),
        ("broken.py", "broken.py line 2 is not Python"),
        ("run.sh", "is not Python"),
        ("tool", "is not Python"),
        ("binary", "binary file"),
        ("pkg.fit", "no such file"),
        ("json", "add -m"),
    ],
)
def test_what_is_no_python_script(project, script, said):
    with pytest.raises(PlanError) as caught:
        check_script(script, False, project)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("module", "said"),
    [
        ("pkg.fti", "no module 'pkg.fti'"),
        ("pkg/fit.py", "pass -m pkg.fit"),
        ("pkg", "without __main__.py"),
        ("nowhere.x", "no module"),
        ("train.x", "no module"),
    ],
)
def test_what_is_no_module(project, module, said):
    with pytest.raises(PlanError) as caught:
        check_script(module, True, project)
    assert said in str(caught.value)


def test_another_path_for_the_ranks_is_not_judged_from_here(tmp_path):
    (tmp_path / "train.py").write_text("import no_such_module_of_mine\n")
    with pytest.raises(PlanError, match="no_such_module_of_mine"):
        check_script("train.py", False, tmp_path)
    check_script("train.py", False, tmp_path, env=("A=1", "PYTHONPATH=/elsewhere"))
