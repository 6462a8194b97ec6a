"""The surface of the command line: a change here is a reviewed golden file and a line in the changelog."""

import json
import subprocess
import sys
from dataclasses import MISSING, fields

import click
import pytest
from dtk_launch.cli import app
from dtk_launch.config import env_name
from dtk_launch.options import LaunchOptions, SubmitOptions, field_docs


def test_options_and_defaults_are_frozen(golden):
    lines = []
    for command, kind in (("launch", LaunchOptions), ("submit", SubmitOptions)):
        defaults = {f.name: "required" if f.default is MISSING else repr(f.default) for f in fields(kind)}
        for parameter in app.commands[command].params:
            flags = " ".join(parameter.opts)
            variable = env_name(parameter.name) or "none"
            lines.append(f"{command} {flags} default {defaults[parameter.name]} variable {variable}\n")
    of_launch = [parameter.opts for parameter in app.commands["launch"].params]
    for command in ("init", "rerun", "top", "logs", "runs", "doctor"):
        own = (parameter.opts for parameter in app.commands[command].params if parameter.opts not in of_launch)
        lines += [f"{command} {' '.join(flags)}\n" for flags in own]
    golden("options.txt", "".join(lines))


def test_explain_takes_what_launch_takes():
    launch, explain = (app.commands[name].params for name in ("launch", "explain"))
    assert [p.opts for p in launch] == [p.opts for p in explain]


def test_rerun_takes_what_launch_takes_but_for_what_a_record_settles():
    launch, rerun = ({tuple(p.opts) for p in app.commands[name].params} for name in ("launch", "rerun"))
    assert launch - rerun == {("--profile",), ("--module", "-m"), ("script",)}


def test_the_help_is_the_field_docstring():
    docs = field_docs()
    assert set(docs) == {f.name for f in fields(SubmitOptions)}
    for parameter in app.commands["submit"].params:
        if isinstance(parameter, click.Option):
            assert parameter.help == docs[parameter.name]


@pytest.mark.parametrize(
    "words", [["--help"], ["launch", "--help"], ["launch", "--nproc", "2", "--dry-run", "-m", "json.tool"]]
)
def test_heavy_packages_are_not_imported(words):
    check = (
        "import json, sys\nsys.argv = ['dtk', *json.loads(sys.argv[1])]\nfrom dtk_launch.cli import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "heavy = {'torch', 'numpy', 'rich', 'jinja2', 'typer', 'pydantic', 'dist_toolkit'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", check, json.dumps(words)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
