"""What `dtk bench launch` starts: apart from the terminal, and named where it fails."""

import os
import subprocess
import sys

import pytest
from bench_parts.processes import ProcessFailed
from launch_parts.commands import run

APART = "import os; assert os.getsid(0) == os.getpid()"


def test_a_command_has_a_session_of_its_own_and_no_way_to_the_terminal(tmp_path, capfd):
    """A Ctrl-C of the terminal, and the command's last words, are for the benchmark alone."""
    run([sys.executable, "-c", f"import sys; print('out'); print('err', file=sys.stderr); {APART}"], tmp_path)
    assert capfd.readouterr() == ("", "")


def test_one_that_fails_is_named_with_its_last_words(tmp_path):
    words = [sys.executable, "-c", "import sys; sys.exit('no such thing')"]
    with pytest.raises(ProcessFailed, match=r"(?s)-c .*ended with exit code 1.*no such thing") as caught:
        run(words, tmp_path)
    assert caught.value.code == 1
    assert not isinstance(caught.value, subprocess.CalledProcessError)


def test_one_that_cannot_be_started(tmp_path):
    with pytest.raises(ProcessFailed, match="cannot be started"):
        run([os.fspath(tmp_path / "none")], tmp_path)
