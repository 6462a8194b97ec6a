"""plan.json: what was launched, from what, with what; and no secret in it. `docs/reproduction.md` describes it."""

from __future__ import annotations

import hashlib
import os
import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dtk_launch import snapshot, submitted
from dtk_launch.explain import plan_json
from dtk_launch.facts import HostFacts, installed_versions
from dtk_launch.options import LaunchOptions
from dtk_launch.plan import LaunchPlan
from dtk_launch.redaction import MARK, hide_environment, hide_known, hide_value, hide_words, known_secrets
from dtk_launch.streams import json_text
from dtk_launch.torchrun import Command

FORMAT = 1
PACKAGES = ("dist_toolkit", "torch", "torchvision", "numpy", "transformers", "accelerate", "deepspeed", "datasets")
VALUE_CHARACTERS = 4096
"""Of a longer variable only the length is kept."""


@dataclass(frozen=True)
class Surroundings:
    """What a launch stands in and a plan does not hold."""

    time: str
    cwd: Path
    environ: Mapping[str, str]
    versions: Mapping[str, str]
    host: Mapping[str, Any]
    script: Mapping[str, str]
    """Its path, and the SHA-256 of its bytes; empty for a module."""
    tree: Mapping[str, Any]


def observe(plan: LaunchPlan, facts: HostFacts, options: LaunchOptions) -> Surroundings:
    """Look at the source tree, the packages and the host. Takes about as long as three git commands."""
    script = None if plan.target.module else facts.cwd / plan.target.script
    environ = dict(os.environ)
    known = known_secrets(options.args, options.env, environ)
    folder = script.parent if script else facts.cwd
    uname = os.uname()
    return Surroundings(
        time=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        cwd=facts.cwd,
        environ=environ,
        versions={"python": sys.version.split()[0], **installed_versions(PACKAGES)},
        host={
            "name": socket.gethostname(),
            "system": f"{uname.sysname} {uname.release}",
            "machine": uname.machine,
            "python": sys.executable,
            "cores": facts.cores.number,
            "gpus": facts.gpus.number,
        },
        script={}
        if script is None
        else {"path": str(script), "sha256": hashlib.sha256(script.read_bytes()).hexdigest()},
        tree=submitted.record_of(folder) or snapshot.take(folder, plan.run_dir, script, known),
    )


def record(plan: LaunchPlan, command: Command, options: LaunchOptions, around: Surroundings) -> dict[str, Any]:
    """What plan.json holds, as plain values. Pure."""
    values = plan_json(plan, command)
    args = hide_words(options.args)
    argv = hide_words(command.argv)
    env = hide_environment(dict(command.env))
    environment = {name: _short(value) for name, value in sorted(hide_environment(around.environ).items())}
    given = hide_words(options.env)
    hidden: dict[str, Any] = {
        "format": FORMAT,
        "time": around.time,
        **values,
        "command": Command(argv, tuple(env.items())).shell_text(),
        "argv": argv,
        "cwd": str(around.cwd),
        "target": values["target"] | {"args": args},
        "env": env,
        "decisions": [_decision(row, args) for row in values["decisions"]],
        "options": asdict(options) | {"args": args, "env": given},
        "script": dict(around.script),
        "versions": dict(around.versions),
        "host": dict(around.host),
        "environment": environment,
    }
    hidden = _everywhere(hidden, known_secrets(options.args, options.env, around.environ))
    tree = dict(around.tree)
    return hidden | {"redacted": _redacted(hidden, tree), "tree": tree}


def text(values: dict[str, Any]) -> str:
    """The record as JSON that any UTF-8 file can hold, whatever bytes are in file names."""
    return json_text(values)


def _decision(row: Mapping[str, Any], args: tuple[str, ...]) -> dict[str, Any]:
    name = row["key"].rpartition(" ")[2]  # `env NAME`, `shell NAME`
    return {**row, "value": " ".join(args) if name == "args" else hide_value(name, row["value"])}


def _short(value: str) -> str:
    return value if len(value) <= VALUE_CHARACTERS else f"<{len(value)} characters, left out>"


def _everywhere(value: Any, known: tuple[str, ...]) -> Any:
    if isinstance(value, str):
        return hide_known(value, known)
    if isinstance(value, dict):
        return {name: _everywhere(below, known) for name, below in value.items()}
    if isinstance(value, (list, tuple)):
        return [_everywhere(below, known) for below in value]
    return value


def _redacted(hidden: Mapping[str, Any], tree: Mapping[str, Any]) -> list[str]:
    """Where the mark stands, in words."""
    env, environment, args = hidden["env"], hidden["environment"], hidden["options"]["args"]
    places = [f"environment {name}" for name, value in environment.items() if MARK in value]
    places += [f"env {name}" for name, value in env.items() if MARK in value]
    places += [f"argument {number} of the script" for number, word in enumerate(args, start=1) if MARK in word]
    places += [f"untracked {name}" for name, content in tree.get("untracked", {}).items() if MARK in content]
    return [*places, *(["diff"] if MARK in tree.get("diff", "") else [])]
