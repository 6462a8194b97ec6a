"""plan.json: everything that a rerun needs, and no secret."""

import json

import pytest
from dtk_launch.compare import differences, notes
from dtk_launch.config import resolve
from dtk_launch.options import LaunchOptions
from dtk_launch.plan import build_plan
from dtk_launch.record import Surroundings, record, text
from dtk_launch.redaction import MARK
from dtk_launch.sources import complete
from dtk_launch.torchrun import render

# twenty secrets in a shell: (name, value, what of it must not be written)
_NAMES = (
    "WANDB_API_KEY", "OPENAI_API_KEY", "HF_TOKEN", "GITHUB_TOKEN", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN",
    "AWS_ACCESS_KEY_ID", "MLFLOW_TRACKING_PASSWORD", "DATABASE_PASSWD", "MYSQL_PWD", "REDIS_AUTH", "SENTRY_DSN",
    "SLACK_WEBHOOK", "SSH_PRIVATE_KEY", "SESSION_COOKIE", "MY_CREDENTIALS", "JWT", "apiKey", "AZURE_CLIENT_SECRET",
    "DB_PASS",
)  # fmt: skip
SHELL = [
    *((name, f"hush-{number}-{name.lower()}", f"hush-{number}-") for number, name in enumerate(_NAMES)),
    ("DATABASE", "postgres://ada:hush-21@db/x", "hush-21"),
    ("ONE", "hf_Hush22Hush22Hush22", "Hush22"),
    ("TWO", "ghp_Hush23Hush23Hush23", "Hush23"),
    ("THREE", "sk-proj-Hush24Hush24Hush24", "Hush24"),
    ("FOUR", "AKIAHUSH25HUSH25HUSH", "HUSH25"),
    ("FIVE", "xoxb-26-hush26hush26", "hush26"),
]
PLAIN = {"TOKENIZERS_PARALLELISM": "false", "XDG_SESSION_TYPE": "tty", "KEYBOARD": "us", "NCCL_DEBUG": "INFO"}
TREE = {
    "root": "/p", "commit": "c" * 40, "changed": ["t.py"], "diff": "d", "diff_encoding": "utf-8", "diff_digest": "1",
    "untracked": {"a.py": "x"}, "submodules": {"s": "1"}, "left_out": ["data.bin: not source, by its suffix"],
}  # fmt: skip


@pytest.fixture
def recorded(facts):
    """The record of a launch of train.py, as it is read again; keywords that Surroundings has change these."""

    def make(given=None, on=None, **around):
        on = on or facts()
        settings = resolve(LaunchOptions, {"script": "train.py"} | (given or {}), {}, on.cwd)
        plan = complete(build_plan(settings, on), settings, {})
        usual = {
            "time": "now", "cwd": on.cwd, "environ": PLAIN, "versions": {"torch": "2.14.1"}, "tree": TREE,
            "host": {"name": "h", "machine": "m", "gpus": 0}, "script": {"path": "/p/train.py", "sha256": "2"},
        }  # fmt: skip
        return json.loads(text(record(plan, render(plan), settings.options, Surroundings(**usual | around))))

    return make


def test_twenty_secrets_of_the_shell_the_options_and_the_arguments_are_not_written(recorded):
    environ = PLAIN | {name: value for name, value, _ in SHELL}
    separate = (word for name, value, _ in SHELL for word in (f"--{name.lower()}", value))
    joined = (f"trainer.{name}={value}" for name, value, _ in SHELL)
    args = ("--lr", "0.1", *separate, *joined, f"copied {SHELL[0][1]}")
    values = recorded({"args": args, "env": tuple(f"{name}={value}" for name, value, _ in SHELL)}, environ=environ)
    written = json.dumps(values)
    for _, _, secret in SHELL:
        assert secret not in written
    assert {name: values["environment"][name] for name in PLAIN} == PLAIN
    assert len(values["options"]["args"]) == len(args)
    assert values["options"]["args"][:2] == ["--lr", "0.1"]
    for place in ("environment WANDB_API_KEY", "env HF_TOKEN", "argument 4 of the script"):
        assert place in values["redacted"]
    assert MARK in values["command"]
    assert [row["value"] for row in values["decisions"] if row["key"] == "env HF_TOKEN"] == [MARK]


def test_without_secrets_the_record_is_what_runs(recorded):
    args = ("--max-tokens", "512", "--tokenizer", "gpt2", "--eos-token", "</s>", "--seed=0")
    values = recorded({"args": args, "env": ("TOKENIZERS_PARALLELISM=false",)})
    assert values["redacted"] == []
    assert values["format"] == 1
    assert values["options"]["args"] == values["target"]["args"] == list(args)
    assert values["argv"][-len(args) :] == list(args)
    assert values["tree"] == TREE
    assert values["env"]["TOKENIZERS_PARALLELISM"] == "false"


def test_any_bytes_in_names_and_values_can_be_written_and_read_again(recorded):
    odd = b"caf\xe9".decode("utf-8", "surrogateescape")
    values = recorded({"args": (odd, "grüße 🙂")}, environ={"A": odd, "LONG": "x" * 5000})
    assert values["options"]["args"] == [odd, "grüße 🙂"]
    assert values["environment"] == {"A": odd, "LONG": "<5000 characters, left out>"}


def test_two_records_of_the_same_differ_in_nothing(recorded):
    assert differences(recorded(), recorded()) == ()
    again = recorded(
        {"name": "other", "run_dir": "elsewhere"}, time="later", host={"name": "i", "machine": "m", "gpus": 0}
    )
    assert differences(recorded(), again) == ()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"tree": TREE | {"commit": "d" * 40}}, "git commit: cccccccccccc then, dddddddddddd now"),
        ({"tree": TREE | {"diff_digest": "2", "changed": ["u.py"]}}, "others then and now, in t.py, u.py"),
        ({"tree": TREE | {"diff_digest": None, "left_out": ["diff: more"]}}, "not recorded whole (diff: more)"),
        ({"tree": TREE | {"untracked": {"a.py": "y"}}}, "untracked source changed: a.py"),
        ({"tree": TREE | {"untracked": {"a.py": "x", "b.py": ""}}}, "untracked source new: b.py"),
        ({"tree": TREE | {"untracked": {}}}, "untracked source gone: a.py"),
        ({"tree": TREE | {"submodules": {"s": "2"}}}, "submodule s: 1 then, 2 now"),
        ({"tree": TREE | {"left_out": ["w.py: 300000 bytes, more than 262144"]}}, "too large to record: w.py"),
        ({"tree": {"why": "git is not installed", "untracked": {}, "left_out": []}}, "now, git is not installed"),
        ({"script": {"path": "/p/train.py", "sha256": "3"}}, "script: train.py has changed"),
        ({"versions": {"torch": "2.15.0"}}, "version of torch: 2.14.1 then, 2.15.0 now"),
        ({"versions": {}}, "version of torch: 2.14.1 then, not there now"),
        ({"environ": PLAIN | {"NCCL_DEBUG": "WARN"}}, "shell NCCL_DEBUG: INFO then, WARN now"),
        ({"environ": PLAIN | {"CUDA_VISIBLE_DEVICES": ""}}, "shell CUDA_VISIBLE_DEVICES: not there then, empty now"),
        ({"host": {"name": "h", "machine": "m", "gpus": 4}}, "host: gpus: 0 then, 4 now"),
        ({"given": {"args": ("--x",)}}, "arguments: '' then, '--x' now"),
        ({"given": {"nproc": "4"}}, "nproc: 1 then, 4 now"),
        ({"given": {"strategy": "ddp"}}, "option strategy: auto then, ddp now"),
        ({"given": {"env": ("A=1",)}}, "env A: not there then, 1 now"),
    ],
)  # fmt: skip
def test_each_difference_is_named(recorded, change, said):
    assert said in "\n".join(differences(recorded(), recorded(**change)))


NO_GIT = {
    "why": "fatal: not a git repository (or any of the parent directories): .git",
    "untracked": {},
    "left_out": [],
}


def test_a_source_that_is_in_no_repository_is_not_compared_and_no_difference(recorded):
    for then, now, verb in ((NO_GIT, NO_GIT, "is"), (NO_GIT | {"why": "git is not installed"}, TREE, "was")):
        sides = recorded(tree=then), recorded(tree=now)
        assert differences(*sides) == ()
        assert notes(*sides) == (f"the source {verb} not in git, so it was not compared, but for the script",)
    for then, now in ((TREE, NO_GIT), (NO_GIT | {"why": "git took longer than 1 seconds"}, NO_GIT)):
        sides = recorded(tree=then), recorded(tree=now)
        assert "cannot be compared" in differences(*sides)[0]
        assert notes(*sides) == ()
    assert notes(recorded(), recorded()) == ()


def test_what_has_no_influence_is_not_named(recorded):
    changed = {
        **PLAIN,
        "HF_TOKEN": "any",
        "OMP_NUM_THREADS": "8",
        "HOME": "/home/eve",
        "DTK_SUPERVISOR": "h:1",
        "XDG_SESSION_TYPE": "x11",
    }
    larger = TREE | {"left_out": ["other.bin: not source, by its suffix"]}
    assert differences(recorded(), recorded(environ=changed, tree=larger)) == ()
