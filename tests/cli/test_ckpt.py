"""`dtk ckpt` through dtk: arguments, exit codes, signals, and where it looks for modules."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess

import pytest

from tests.cli.conftest import DTK
from tests.unit.checkpoint.made_up import model, whole, write

pytestmark = pytest.mark.cli


def test_arguments_and_exit_codes_pass_through(tmp_path, dtk):
    write(tmp_path / "runs", 1, [model()])
    (tmp_path / "json.py").write_text("raise SystemExit('taken from the current folder')")
    listed = dtk("ckpt", "ls", "runs", "--json")
    assert listed.returncode == 0, listed.stderr
    assert [row["step"] for row in json.loads(listed.stdout)["checkpoints"]] == [1]
    (tmp_path / "runs" / "step-00000001" / "rank-00000.safetensors").unlink()
    assert dtk("ckpt", "verify", "runs").returncode == 1
    missing = dtk("ckpt", "show", "nowhere")
    assert (missing.returncode, missing.stderr.count("\n")) == (2, 1)
    assert "verify" in dtk("ckpt", "--help").stdout
    assert "--keep-best" in dtk("ckpt", "prune", "--help").stdout


def test_a_reader_that_leaves_early_is_no_error(tmp_path):
    write(tmp_path, 1, [model(layers=2000)])
    shell = f"set -o pipefail; {DTK} ckpt show --all {tmp_path} | head -1; echo $?"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout.splitlines()[1], done.stderr) == ("141", "")


def test_ctrl_c_ends_it_without_a_traceback(tmp_path, until):
    """It waits on the second file, a pipe without a writer; that it opens the first says that it is at work."""
    write(tmp_path, 1, [model(), {"rng.1": whole(5)}])
    first, second = (tmp_path / "step-00000001" / f"rank-0000{rank}.safetensors" for rank in (0, 1))
    for path in (first, second):
        path.unlink()
        os.mkfifo(path)
    process = subprocess.Popen([DTK, "ckpt", "verify", tmp_path], stdout=-1, stderr=-1, text=True)
    try:
        writer = until(lambda: open_for_a_reader(first), "dtk ckpt opens the first file")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
        os.close(writer)
    finally:
        process.kill()
        process.communicate()
    assert (process.returncode, out, err) == (130, "", "")


def open_for_a_reader(pipe):
    """The end to write to, once somebody reads; None before."""
    try:
        return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return None
