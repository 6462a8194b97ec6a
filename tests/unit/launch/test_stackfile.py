"""Where a rank writes its stacks: the signals that ask for them, in a real interpreter."""

import subprocess
import sys

import pytest
from dtk_launch.resources import worker_path

LATE = """
import importlib.util, os, sys
spec = importlib.util.spec_from_file_location("stackfile", sys.argv[1])
stackfile = importlib.util.module_from_spec(spec)
spec.loader.exec_module(stackfile)
stacks = stackfile.register("stacks")["stacks"]

class Last:
    def __del__(self):
        os.kill(os.getpid(), stacks["gentle"])
        os.kill(os.getpid(), stacks["signal"])
        print("still there")

sys.last_value = Last()  # goes with the interpreter
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs real-time signals")
def test_a_question_that_comes_when_python_has_taken_its_handlers_away_kills_nobody(tmp_path):
    (tmp_path / "late.py").write_text(LATE)
    command = [sys.executable, "late.py", worker_path().with_name("stackfile.py")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "still there\n"), done.stderr
