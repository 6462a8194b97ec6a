"""dtk init, what a launch writes down, and dtk rerun: as processes, with real runs."""

import json
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.cli

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

    (project / "train.py").write_text("print('changed')\n")
    exact = dtk("rerun", "runs/train", "--exact", *again, cwd=project, **SHELL, HF_TOKEN="hush50-option")
    assert exact.returncode == 2
    for said in ("uncommitted changes: others then and now, in train.py", "script: train.py has changed", "--exact"):
        assert said in exact.stderr

    words = ("rerun", str(project / "runs/train"), "--exact", "--restore", "copy", "--name", "second", *again)
    second = dtk(*words, cwd=tmp_path, **SHELL, HF_TOKEN="hush50-option")
    said = "conf.toml holds <redacted> for a secret"
    assert (second.returncode, said in second.stderr) == (2, True), second.stderr


def test_a_run_goes_on_in_its_folder_and_a_restored_tree_runs_as_it_was(dtk, project, tmp_path):
    (project / "conf.toml").unlink()
    (project / ".env").unlink()
    first = dtk("launch", "--env", "HF_TOKEN=mine", "train.py", "--lr", "1", cwd=project)
    assert first.returncode == 3, first.stderr
    (project / "train.py").write_text("print('changed', flush=True)\n")
    words = ("rerun", str(project / "runs/train"), "--exact", "--restore", "copy")
    second = dtk(*words, cwd=tmp_path, HF_TOKEN="mine")
    assert (second.returncode, second.stdout) == (3, first.stdout), second.stderr
    assert "differs" not in second.stderr
    assert not (tmp_path / "copy" / "runs").exists()
    third = dtk("rerun", str(tmp_path / "copy" / "runs"), cwd=tmp_path)
    assert (third.returncode, "no plan.json" in third.stderr) == (2, True)


def test_what_init_writes_runs(dtk, tmp_path):
    made = dtk("init", "mine")
    assert made.returncode == 0, made.stderr
    commands = made.stdout.split("next:\n")[1].splitlines()
    assert commands[0] == "cd mine"
    explained = dtk(*commands[3].split()[1:], cwd=tmp_path / "mine", COLUMNS="150")
    assert "dtk.toml:15 profile two" in explained.stdout
    done = dtk(*commands[2].split()[1:], cwd=tmp_path / "mine")
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split()[-1]) > 0.95
    again = dtk("init", "mine")
    assert (again.returncode, "--force" in again.stderr) == (2, True)


@pytest.mark.slow
def test_what_init_writes_runs_without_dtk(dtk, tmp_path):
    dtk("init", ".")
    environ = {**os.environ, "PATH": os.environ["PATH"]}
    done = subprocess.run(
        [sys.executable, "train.py"],
        cwd=tmp_path,
        env=environ,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split()[-1]) > 0.95
