"""Two starts of one SLURM job at once: SLURM takes the earlier one for dead, and it is not."""

import json
import signal
import sys

import pytest

pytestmark = [
    pytest.mark.cli,
    pytest.mark.skipif(sys.platform != "linux", reason="needs parent-death signals and /proc"),
]

JOB = {"SLURM_JOB_ID": "7"}


def test_the_later_start_of_a_job_has_the_run_and_the_earlier_one_ends(start, dtk, waiting, both):
    run = start(waiting("signal.signal(signal.SIGTERM, signal.SIG_IGN)"), "--nproc", "2", environ=JOB)
    run.pids(*both)
    run.torchrun()
    (run.folder / "later.py").write_text("print('goes on')")
    run_dir = ["--run-dir", str(run.folder / "runs" / "script")]
    later = dtk("launch", *run_dir, "later.py", **JOB, SLURM_RESTART_COUNT="1")
    assert (later.returncode, "goes on" in later.stdout) == (0, True), later.stderr
    code, _, err = run.wait()
    assert code == 1, err
    assert "SLURM has started this job again" in err
    run.nothing_is_left()
    verdict = json.loads((run.folder / "runs" / "script" / "verdict.json").read_text())
    assert (verdict["exit_code"], verdict["culprit"]) == (0, None), "the later one's, whatever the earlier one met"
    too_late = dtk("launch", *run_dir, "later.py", **JOB)
    assert (too_late.returncode, "restart 1" in too_late.stderr) == (2, True), too_late.stderr
    another = dtk("launch", *run_dir, "later.py", SLURM_JOB_ID="8")
    assert another.returncode == 0, another.stderr


@pytest.mark.slow
def test_an_earlier_start_that_stands_still_is_not_waited_for_without_end(start, dtk, waiting, both):
    run = start(waiting(), "--nproc", "2", environ=JOB)
    run.pids(*both)
    run.torchrun()
    run.process.send_signal(signal.SIGSTOP)
    (run.folder / "later.py").write_text("print('goes on')")
    later = dtk(
        *("launch", "--run-dir", str(run.folder / "runs" / "script"), "later.py"),
        **JOB,
        SLURM_RESTART_COUNT="1",
    )
    assert (later.returncode, "goes on" in later.stdout) == (0, True), later.stderr
    run.process.send_signal(signal.SIGCONT)
    assert run.wait()[0] == 1
    run.nothing_is_left()
