"""`dtk rerun`: a record of a run -> the launch that does the same again, and what is not as it was."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from dtk_launch.compare import differences, notes
from dtk_launch.config import Settings
from dtk_launch.errors import PlanError
from dtk_launch.facts import HostFacts
from dtk_launch.launching import Launch, decide
from dtk_launch.options import LaunchOptions, flag_of
from dtk_launch.record import FORMAT
from dtk_launch.redaction import MARK
from dtk_launch.restore import check, restore
from dtk_launch.runref import find_run

_NEEDED = {
    "format",
    "cwd",
    "name",
    "target",
    "topology",
    "options",
    "env",
    "environment",
    "versions",
    "host",
    "script",
    "tree",
}

_KINDS: dict[str, type] = {
    **dict.fromkeys(("target", "topology", "options", "env", "environment", "versions", "host", "tree"), dict),
    "cwd": str,
    "name": str,
}


def load(folder: Path) -> dict[str, Any]:
    """The record of a run directory. Raises PlanError if it cannot be read or lacks what a rerun needs."""
    file = folder / "plan.json"
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PlanError(f"{file} cannot be read: {error}") from None
    if not isinstance(values, dict) or not values.keys() >= _NEEDED:
        raise PlanError(f"{file} lacks what a rerun needs, as an older dtk wrote it; start its command by hand")
    wrong = next((name for name, kind in _KINDS.items() if not isinstance(values[name], kind)), None)
    if wrong is None and not all(isinstance(values["topology"].get(name), int) for name in ("nproc", "nodes")):
        wrong = "topology"
    if values["format"] == FORMAT and wrong is not None:
        raise PlanError(f"{file} was changed: its {wrong} is not what dtk writes; start its command by hand")
    if values["format"] != FORMAT:
        raise PlanError(f"{file} has format {values['format']}, this dtk knows {FORMAT}; use the dtk that wrote it")
    return values


def settings(
    values: Mapping[str, Any], folder: Path, given: Mapping[str, Any], environ: Mapping[str, str]
) -> Settings[LaunchOptions]:
    """The options of the record, as they were resolved and decided, under those given now. Raises PlanError.

    DTK_* variables and dtk.toml are not read. `folder` is the run directory of the record: the run goes on there unless
    a name or another one is given.
    """
    recorded, topology = dict(values["options"]), values["topology"]
    recorded |= {"nproc": str(topology["nproc"]), "nodes": recorded.get("nodes") or str(topology["nodes"])}
    recorded |= {"name": values["name"], "run_dir": str(folder)}
    recorded |= {
        "dry_run": False,
        "json": False,
        "preempt_test": "",
        "env": _environment(recorded.get("env", ()), environ),
    }
    if given.get("name") is not None:
        recorded["run_dir"] = ""
    chosen: dict[str, Any] = {}
    sources: dict[str, str] = {}
    file = f"{folder / 'plan.json'}"
    for f in fields(LaunchOptions):
        if given.get(f.name) is not None:
            chosen[f.name], sources[f.name] = given[f.name], f"flag {flag_of(f.name)}"
        elif f.name in recorded:
            value = recorded[f.name]
            chosen[f.name], sources[f.name] = tuple(value) if isinstance(value, list) else value, file
        else:
            sources[f.name] = "default"
    if given.get("env"):
        chosen["env"] = (*recorded["env"], *given["env"])  # the later of two wins
    options = LaunchOptions(**chosen)
    hidden = [number for number, word in enumerate(options.args, start=1) if MARK in word]
    if hidden:
        shown = " ".join(options.args)
        raise PlanError(
            f"argument {hidden[0]} of the script was a secret and is not recorded ({shown}); pass all arguments of the "
            f"script again: dtk rerun {folder.name} -- ARGS"
        )
    return Settings(options, sources)


def _environment(pairs: Any, environ: Mapping[str, str]) -> tuple[str, ...]:
    """The recorded --env, what was redacted from the present environment."""
    found = []
    for pair in pairs:
        name, _, value = pair.partition("=")
        if MARK in value:
            if name not in environ:
                raise PlanError(
                    f"--env {name} was a secret and is not recorded; set {name} in the environment, or pass --env"
                )
            value = environ[name]
        found.append(f"{name}={value}")
    return tuple(found)


def moved(values: Mapping[str, Any], tree: Path) -> dict[str, Any]:
    """The record with its working folder and script in a restored tree. Raises PlanError if they were outside."""
    root, cwd = Path(values["tree"].get("snapshot") or values["tree"]["root"]), Path(values["cwd"])
    script = Path(values["options"]["script"])
    if not cwd.is_relative_to(root):
        raise PlanError(f"the run was started in {cwd}, outside its tree {root}; restore by hand: git worktree add")
    options, environment = dict(values["options"]), dict(values["environment"])
    if script.is_absolute() and script.is_relative_to(root):
        options["script"] = str(tree / script.relative_to(root))
    options["env"] = [
        f"PYTHONPATH={_moved_path(pair.partition('=')[2], root, tree)}" if pair.startswith("PYTHONPATH=") else pair
        for pair in options.get("env", ())
    ]
    if "PYTHONPATH" in environment:
        environment["PYTHONPATH"] = _moved_path(environment["PYTHONPATH"], root, tree)
    return {**values, "cwd": str(tree / cwd.relative_to(root)), "options": options, "environment": environment}


def _moved_path(path: str, root: Path, tree: Path) -> str:
    entries = (Path(entry) for entry in path.split(os.pathsep))
    return os.pathsep.join(str(tree / e.relative_to(root) if e.is_relative_to(root) else e) for e in entries)


def import_path(recorded: str, tree: Path, present: str) -> str:
    """PYTHONPATH for a run of a snapshot: what the record has of the folders of its `tree`, then the present ones."""
    own = [entry for entry in recorded.split(os.pathsep) if entry and Path(entry).is_relative_to(tree)]
    return os.pathsep.join((*own, *(entry for entry in present.split(os.pathsep) if entry and entry not in own)))


@dataclass(frozen=True)
class Again:
    """A launch that repeats another, its record, and what to say before it starts."""

    launch: Launch
    record: dict[str, Any]
    differing: tuple[str, ...]
    notes: tuple[str, ...] = ()
    """What was not compared."""


def prepare(run: str, given: Mapping[str, Any], into: str = "") -> Again:
    """The launch that repeats `run`, and each difference from its record.

    Changes to the folder in which the run was started; with `into`, to that of the tree restored there (which is not
    made in a dry run). Raises PlanError.
    """
    start = Path.cwd()
    folder = find_run(run, start)
    values = load(folder)
    said: tuple[str, ...] = ()
    copy = values["tree"].get("snapshot")
    if into:
        tree = (start / Path(into).expanduser()).resolve()
        there = moved(values, tree)
        if given.get("dry_run"):
            check(values["tree"], tree)
        else:
            said = restore(values["tree"], tree)
            values, copy = there, copy and str(tree)
    if given.get("run_dir"):
        given = {**given, "run_dir": str(start / Path(given["run_dir"]).expanduser())}
    try:
        os.chdir(values["cwd"])
    except OSError as error:
        gone = "; its snapshot is gone, and --restore DIR makes the tree again" if copy else ""
        raise PlanError(
            f"the run was started in {values['cwd']}, which cannot be entered: {error.strerror}{gone}"
        ) from None
    if copy and (found := _import_path(values, Path(copy))):
        os.environ["PYTHONPATH"] = found  # as the batch script had set it
    facts = HostFacts.probe()
    planned = decide(settings(values, folder, given, os.environ), facts)
    record = planned.record()
    if not record:  # not the first node, which says it
        return Again(planned, record, said)
    now = _named(record)
    return Again(planned, record, (*said, *differences(values, now)), notes(values, now))


def _import_path(values: Mapping[str, Any], tree: Path) -> str:
    return import_path(values["environment"].get("PYTHONPATH", ""), tree, os.environ.get("PYTHONPATH", ""))


def _named(record: dict[str, Any]) -> dict[str, Any]:
    """The record as it will be read again."""
    return dict(json.loads(json.dumps(record)))
