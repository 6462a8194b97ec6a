"""Names of any letters, on streams and in locales that do not have these letters."""

import json
import os
import sys

import pytest

pytestmark = pytest.mark.cli

NAME = "ünï 日本"
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}


@pytest.fixture
def ended(tmp_path):
    """A folder with a script of that name and a run of it that has ended."""
    (tmp_path / f"{NAME}.py").write_text("print(1)\n")
    run = tmp_path / "runs" / NAME
    (run / "nodes").mkdir(parents=True)
    entry = {"launch": "a", "time_ns": 2 * 10**9, "started_ns": 10**9, "state": "ended", "exit_code": 0, "ranks": []}
    (run / "nodes" / "0.json").write_text(json.dumps(entry))
    (run / "plan.json").write_text(json.dumps({"name": NAME, "argv": [], "decisions": [], "run_dir": ""}))
    return tmp_path


@pytest.mark.parametrize(
    "words", [("runs",), ("top", NAME), ("explain", f"{NAME}.py"), ("launch", "--dry-run", f"{NAME}.py")]
)
def test_what_the_stream_cannot_encode_is_spelt_out(dtk, ended, words):
    done = dtk(*words, PYTHONIOENCODING="latin-1", encoding="latin-1")
    assert (done.returncode, done.stderr) == (0, "")
    assert r"ünï \u65e5\u672c" in done.stdout


def test_a_script_that_the_locale_cannot_read_needs_a_name(dtk, ended):
    refused = dtk("launch", "--dry-run", f"{NAME}.py", **ASCII)
    assert (refused.returncode, refused.stdout) == (2, "")
    for words in ("file name", "ascii", "PYTHONUTF8=1", "--name"):
        assert words in refused.stderr
    named = dtk("launch", "--dry-run", "--name", "x", f"{NAME}.py", **ASCII)
    assert (named.returncode, named.stderr) == (0, "")
    assert f"{NAME}.py" in named.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="other file systems refuse such a name")
def test_a_failure_in_a_script_whose_name_is_no_text_gets_its_verdict(dtk, tmp_path):
    script = os.fsdecode(b"a\xffb.py")
    (tmp_path / script).write_text("raise ValueError('bad')\n")
    done = dtk("launch", "--name", "x", script, encoding="latin-1")
    assert done.returncode == 1
    assert "dtk: rank 0 failed first: ValueError: bad (exit code 1)" in done.stderr
    verdict = json.loads((tmp_path / "runs" / "x" / "verdict.json").read_text("utf-8"))
    assert os.path.basename(verdict["culprit"]["where"]["file"]) == script
    assert json.loads(dtk("top", "x", "--json").stdout)["state"] == "failed"
