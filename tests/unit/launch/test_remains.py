"""What the batch script learns of nodes that have ended, and of those that say nothing."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
from dtk_launch import batch_step, controller, nodes
from dtk_launch.asking import Answer
from dtk_launch.remains import Remains, first_has_ended, remains

TWO = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n[1-2]", "SLURM_RESTART_COUNT": "1"}


def test_while_the_first_node_runs_the_others_are_not_read(tmp_path: Path) -> None:
    assert not first_has_ended(tmp_path)
    nodes.publish(tmp_path, "0", "7-1", state="running")
    assert not first_has_ended(tmp_path)
    nodes.publish(tmp_path, "0", "7-1", state="ended", exit_code=0)
    assert first_has_ended(tmp_path)


def test_the_nodes_of_this_start_of_the_job(tmp_path: Path) -> None:
    assert remains(tmp_path, TWO, 0) == Remains(("n1", "n2"), {})
    nodes.publish(tmp_path, "0", "7-0", state="ended", exit_code=1)
    nodes.publish(tmp_path, "1", "7-1", state="running")
    assert remains(tmp_path, TWO, 0).silent == ("n1", "n2")
    nodes.publish(tmp_path, "0", "7-1", state="ended", exit_code=75)
    assert remains(tmp_path, TWO, 0) == Remains(("n1", "n2"), {"n1": 75})


def test_the_one_node_of_a_job_by_its_clock(tmp_path: Path) -> None:
    one = {**TWO, "SLURM_JOB_NODELIST": "n1"}
    nodes.publish(tmp_path, "0", "n1:77", state="ended", exit_code=0)
    assert remains(tmp_path, one, time.time_ns()).codes == {}
    assert remains(tmp_path, one, 0).codes == {"n1": 0}


@pytest.mark.parametrize(
    ("codes", "code"), [([], None), ([0, 0], 0), ([0, 75], 75), ([0, 75, 3], 3), ([9, 3], 3), ([69], 69)]
)
def test_the_code_of_the_run(codes: list[int], code: int | None) -> None:
    assert Remains((), {str(n): c for n, c in enumerate(codes)}).code == code


def test_who_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that SLURM knows to be down, one whose slurmd takes no connection, and one that is well."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as slurmd, socket.create_server(("127.0.0.1", 0)) as other:
        free = other.getsockname()[1]
        other.close()
        words = "NodeName={} Arch=x NodeAddr=127.0.0.1 State={} ThreadsPerCore=1 Port={} OS=Linux x\n"
        port = slurmd.getsockname()[1]
        rows = [("n1", "DOWN*", port), ("n2", "ALLOCATED", free), ("n3", "MIXED+DRAIN", port), ("n4", "IDLE*", port)]
        said = "".join(words.format(*row) for row in rows)
        monkeypatch.setattr(controller, "ask", lambda *words, **options: Answer(0, said, ""))
        assert controller.lost_among(["n1", "n2", "n3", "n4"]) == ("n1", "n2", "n4")
    assert controller.lost_among([]) == ()
    monkeypatch.setattr(controller, "ask", lambda *words, **options: Answer(None, "", "no scontrol"))
    assert controller.lost_among(["n1"]) == ()


def test_srun_that_waits_for_nobody_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_step, "_LOOK_EVERY", 0.02)
    monkeypatch.setattr(batch_step, "_SRUN_PATIENCE", 0.1)
    looks = iter([None, Remains(("n1",), {}), *[Remains(("n1",), {"n1": 75})] * 1000])
    said: list[str] = []
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as srun:
        assert batch_step._end_of(srun, lambda: next(looks), said.append) == 75
    assert "slurmstepd must have died" in said[0]
