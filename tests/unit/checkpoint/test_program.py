"""`dtk ckpt` as a program: bad input, help, no torch."""

from __future__ import annotations

import io
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from dist_toolkit.checkpoint.tool.arguments import help_text, parse
from dist_toolkit.checkpoint.tool.terminal import Progress
from tests.unit.checkpoint.made_up import model, write

COMMANDS = {"ls": [], "show": [], "verify": [], "diff": ["--step", "1", "--step", "2"], "prune": ["--keep-last", "1"]}


@pytest.mark.parametrize("command", COMMANDS)
def test_bad_paths_are_one_line_that_says_what_to_do(tmp_path, ckpt, command):
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "train.py").write_text("")
    write(tmp_path / "run" / "inside", 1, [model()])
    said = {
        "missing": "does not exist", "empty": "holds no checkpoints", "other": "holds no checkpoints",
        "other/train.py": "is a file", "run": "did you mean ROOT/run/inside?",
    }  # fmt: skip
    for name, words in said.items():
        for extra in ([], ["--json"]):
            answer = ckpt(command, tmp_path / name, *COMMANDS[command], *extra)
            assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1)
            assert words in answer.err
    assert "Traceback" not in answer.err


@pytest.mark.parametrize("words", [["lss"], ["ls"], ["show", "x", "--step", "two"], ["show", "x", "--depth", "0"]])
def test_bad_arguments_are_one_line(ckpt, words):
    answer = ckpt(*words)
    assert (answer.code, answer.err.count("\n")) == (2, 1)
    assert answer.err.startswith("dtk ckpt: error: ")


@pytest.mark.parametrize("command", [*COMMANDS, "convert"])
def test_every_command_has_help(ckpt, capsys, command):
    with pytest.raises(SystemExit) as ended:
        ckpt(command, "--help")
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert f"usage: dtk ckpt {command}" in text
    assert "--json" in text


def test_without_a_command_the_help_is_shown(ckpt):
    answer = ckpt()
    assert (answer.code, "Exit codes" in answer.out) == (2, True)


def test_no_command_imports_torch(tmp_path):
    for step in (1, 2):
        write(tmp_path, step, [model()])
    out = ["convert", str(tmp_path), str(tmp_path / "model.safetensors"), "--all"]
    (tmp_path / "config.json").write_text('{"model_type": "x"}')
    folder = ["convert", str(tmp_path), str(tmp_path / "folder"), "--to", "hf"]
    folder += ["--config", str(tmp_path / "config.json")]
    calls = [out, folder] + [[name, str(tmp_path), *more] for name, more in COMMANDS.items()]
    calls[-1].append("--yes")
    source = (
        "import sys\nfrom dist_toolkit.checkpoint.tool.app import main\n"
        f"for words in {calls!r}:\n    assert main(words) in (0, 1), words\n"
        "heavy = {'torch', 'numpy', 'rich', 'click'} & set(sys.modules)\nassert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", source], check=True, capture_output=True, timeout=60)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "config.json", "folder", "model.safetensors", "step-00000002",
    ]  # fmt: skip


def test_every_command_in_the_documents_and_the_help_can_be_parsed():
    page = (Path(__file__).parents[3] / "docs" / "checkpoints.md").read_text(encoding="utf-8")
    lines = re.findall(r"^ *dtk ckpt ([^#\n]*?)(?:  .*)?$", page + help_text(), re.MULTILINE)
    parsed = {parse(shlex.split(line)).command for line in lines}
    assert parsed == {*COMMANDS, "convert"}


class Screen(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("kind", [Screen, io.StringIO])
def test_progress_is_for_terminals_and_wipes_itself(kind):
    with kind() as stream:
        with Progress(4 << 20, stream) as progress:
            progress.begin("step-00000001")
            progress.advance(1 << 20)
        text = stream.getvalue()
    assert ("1.0 MiB of 4.0 MiB" in text) == (kind is Screen)
    assert text.endswith("\r\x1b[2K") == (kind is Screen)
