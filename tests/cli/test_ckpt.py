"""`dtk ckpt` through dtk: arguments, exit codes, signals, and where it looks for modules."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from dist_toolkit.checkpoint.manifest import TensorEntry
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
    """It reads for seconds in 16 GiB of nothing; that it has the file open says that it is at work."""
    manifest = write(tmp_path, 1, [{"weights": whole(5)}])
    ((name, entry),) = manifest.files.items()
    path, length = tmp_path / "step-00000001" / name, entry.header + (16 << 30)
    os.truncate(path, length)
    chunk = manifest.tensors["weights"].chunks[0]._replace(end=length, sizes=(16 << 30,))
    longer = replace(
        manifest,
        files={name: replace(entry, size=length)},
        tensors={"weights": TensorEntry("U8", (16 << 30,), (chunk,))},
    )
    (path.parent / "manifest.json").write_bytes(longer.encode())
    process = subprocess.Popen([DTK, "ckpt", "verify", tmp_path], stdout=-1, stderr=-1, text=True)
    try:
        until(lambda: path in open_files(process.pid), "dtk ckpt opens the file")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
        process.communicate()
    assert (process.returncode, out, err) == (130, "", "")


def open_files(pid):
    """What the process has open."""
    found = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            found.add(link.readlink())
    return found
