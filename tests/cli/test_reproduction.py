"""dtk init, what a launch writes down, and dtk rerun: as processes, with real runs."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.cli

DOCS = Path(__file__).parents[2] / "docs"

SCRIPT = """
import hashlib, os, sys
words = [*sys.argv[1:], os.environ["HF_TOKEN"]]
print("first", [hashlib.sha256(word.encode()).hexdigest()[:8] for word in words], flush=True)
sys.exit(3)
"""
NAMES = (
    "WANDB_API_KEY", "OPENAI_API_KEY", "GITHUB_TOKEN", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "COMET_API_KEY",
    "MLFLOW_TRACKING_PASSWORD", "DATABASE_PASSWD", "MYSQL_PWD", "REDIS_AUTH", "SENTRY_DSN", "SLACK_WEBHOOK", "JWT",
    "SSH_PRIVATE_KEY", "SESSION_COOKIE", "MY_CREDENTIALS", "apiKey", "CLIENT_SECRET", "DB_PASS", "NEPTUNE_API_TOKEN",
)  # fmt: skip
SHELL = {name: f"hush{number:02}-in-the-shell" for number, name in enumerate(NAMES)}
ARGS = ("--api-key", "hush30-argument", "--db", "pg://me:hush31@h/d", "--lr", "0.1")


@pytest.fixture
def project(tmp_path):
    """A repository with a committed script, a change to it and an untracked file with secrets."""
    root = tmp_path / "project"
    root.mkdir()
    (root / "train.py").write_text("committed = True\n")
    who = ("-c", "user.name=a", "-c", "user.email=a@b")
    for words in (("init", "-q"), ("add", "."), (*who, "commit", "-qm", "first")):
        subprocess.run(("git", "-C", str(root), *words), check=True)
    (root / "train.py").write_text(SCRIPT)
    (root / ".env").write_text("HUSH=hush40\n")
    (root / "conf.toml").write_text(f'copied = "{SHELL["JWT"]}"\n')
    return root


def test_no_secret_is_in_the_run_directory_and_the_run_can_be_repeated(dtk, project, tmp_path):
    first = dtk("launch", "--env", "HF_TOKEN=hush50-option", "train.py", *ARGS, cwd=project, **SHELL)
    assert first.returncode == 3, first.stderr
    for path in (project / "runs").rglob("*"):
        if path.is_file():
            assert b"hush" not in path.read_bytes().lower().replace(b"hush=", b""), path
    plan = json.loads((project / "runs/train/plan.json").read_text())
    assert len(plan["tree"]["commit"]) == 40
    assert "+import hashlib" in plan["tree"]["diff"]
    assert list(plan["tree"]["untracked"]) == ["conf.toml"]
    assert {f"environment {name}" for name in NAMES} <= set(plan["redacted"])
    assert plan["versions"].keys() >= {"python", "torch", "numpy"}

    refused = dtk("rerun", "train", cwd=project, **SHELL, HF_TOKEN="hush51-from-env")
    assert (refused.returncode, "pass all arguments of the script again" in refused.stderr) == (2, True)
    again = ("--", *ARGS)
    shown = dtk(
        "rerun", "train", "--dry-run", *again, cwd=project, **SHELL, HF_TOKEN="hush51-from-env", NCCL_DEBUG="INFO"
    )
    assert shown.stderr == "dtk: differs: shell NCCL_DEBUG: not there then, INFO now\n"
    assert "HF_TOKEN=hush51-from-env" in shown.stdout

    same = dtk("rerun", "train", "--exact", "--dry-run", *again, cwd=project, **SHELL, HF_TOKEN="hush50-option")
    assert (same.returncode, same.stderr) == (0, "")
    as_documented(dtk, project, "hush50-option")

    (project / "train.py").write_text("print('changed')\n")
    exact = dtk("rerun", "runs/train", "--exact", *again, cwd=project, **SHELL, HF_TOKEN="hush50-option")
    assert exact.returncode == 2
    for said in ("uncommitted changes: others then and now, in train.py", "script: train.py has changed", "--exact"):
        assert said in exact.stderr

    words = ("rerun", str(project / "runs/train"), "--restore", "copy", *again)
    second = dtk(*words, cwd=tmp_path, **SHELL, HF_TOKEN="hush50-option")
    assert (second.returncode, second.stdout) == (3, first.stdout), second.stderr
    said = [line for line in second.stderr.splitlines() if "differs" in line]
    assert said[:2] == [
        "dtk: differs: left out of the record: .env: such files hold secrets",
        "dtk: differs: conf.toml holds <redacted> for a secret",
    ]
    assert not (tmp_path / "copy" / "runs").exists()
    assert json.loads((project / "runs/train/plan.json").read_text())["cwd"] == str(tmp_path / "copy")


def test_outside_git_a_run_is_repeated_exactly(dtk, tmp_path):
    (tmp_path / "train.py").write_text("")
    assert dtk("launch", "--device", "cpu", "train.py").returncode == 0
    note = "dtk: note: the source is not in git, so it was not compared, but for the script\n"
    same = dtk("rerun", "train", "--exact", "--dry-run")
    assert (same.returncode, same.stderr) == (0, note)
    (tmp_path / "train.py").write_text("2")
    other = dtk("rerun", "train", "--exact", "--dry-run")
    assert (other.returncode, other.stderr) == (
        2,
        f"{note}dtk: differs: script: train.py has changed\n"
        "dtk: error: --exact, but 1 difference; drop --exact to start anyway\n",
    )


def as_documented(dtk, project, token):
    """Every command of the page is taken, and its table names every key of the record."""
    page = (DOCS / "reproduction.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```bash\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    for line in block.splitlines():
        dtk_, rerun, *words = shlex.split(line, comments=True)
        words += [] if "--" in words else ["--", *ARGS]
        done = dtk(rerun, "--dry-run", *words, cwd=project, **SHELL, HF_TOKEN=token)
        assert (dtk_, done.returncode) == ("dtk", 0), done.stderr
        assert "train.py" in done.stdout
    rows = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
    plan = json.loads((project / "runs/train/plan.json").read_text())
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == set(plan)


def test_the_table_that_the_page_shows_is_what_explain_says(dtk, tmp_path):
    page = (DOCS / "configuration.md").read_text(encoding="utf-8")
    (file,) = re.findall(r"^```toml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    (table,) = re.findall(
        r"^```\n(.*?)^```", page.partition("shows a row")[2].partition("```bash")[0], re.MULTILINE | re.DOTALL
    )
    (tmp_path / "dtk.toml").write_text(file)
    (tmp_path / "train.py").touch()
    shown = dtk("explain", "--profile", "two", "train.py", COLUMNS="200").stdout
    lines = {" ".join(line.split()) for line in shown.splitlines()}
    assert [line for line in table.splitlines() if " ".join(line.split()) not in lines] == []
    assert dtk("submit", "--profile", "cluster", "--dry-run", "train.py").returncode == 0


@pytest.mark.slow
def test_what_init_writes_runs(dtk, tmp_path):
    made = dtk("init", "mine")
    assert made.returncode == 0, made.stderr
    commands = made.stdout.split("next:\n")[1].splitlines()
    assert commands[0] == "cd mine"
    explained = dtk(*commands[3].split()[1:], cwd=tmp_path / "mine", COLUMNS="150")
    assert "dtk.toml:15 profile two" in explained.stdout
    done = dtk(*commands[1].split()[1:], cwd=tmp_path / "mine")
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split()[-1]) > 0.95
    again = dtk("init", "mine")
    assert (again.returncode, "--force" in again.stderr) == (2, True)


@pytest.mark.slow
def test_what_init_writes_runs_without_dtk_and_with_its_profile(dtk, tmp_path):
    dtk("init", ".")
    alone = subprocess.run(
        [sys.executable, "train.py"], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    profile = dtk("launch", "--profile", "two", "--name", "two", "train.py")
    for done in (alone, profile):
        assert done.returncode == 0, done.stderr
        assert float(done.stdout.split()[-1]) > 0.95
