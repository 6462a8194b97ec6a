import json
import socket

import pytest
from bench_parts.arguments import UsageError, usable_cores, usable_gpus
from bench_parts.elsewhere import CHECK
from bench_parts.needs import needs
from bench_parts.nodes import DRIVER_HOST, interfaces, reports, srun_words
from bench_parts.processes import clean_environment
from comm_parts.arguments import parse


def test_what_this_machine_has_does_not_matter_elsewhere(monkeypatch):
    monkeypatch.setenv(CHECK, json.dumps({"cores": 3000, "gpus": 8}))
    assert (usable_cores(), usable_gpus("auto"), usable_gpus("cpu")) == (3000, 8, 0)
    chosen = parse(["--nodes", "3", "--nproc", "8"])
    assert (chosen.nodes, chosen.backends) == (3, ("nccl",))


def test_what_a_benchmark_needs_is_its_folder_and_a_core_for_each_rank(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = type("Options", (), {"out": "new/folder", "nproc": (1, 4, 2)})
    assert needs(options) == {"out": str(tmp_path / "new/folder"), "cores": 4}
    assert needs(type("Options", (), {"out": tmp_path}))["cores"] == 2
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"cannot write to --out file/x \(.*file is no folder"):
        needs(type("Options", (), {"out": "file/x"}))


@pytest.mark.parametrize(
    ("environ", "whether"),
    [
        ({"LOCAL_RANK": "0"}, True),
        ({"LOCAL_RANK": "1"}, False),
        ({"LOCAL_RANK": "0", DRIVER_HOST: socket.gethostname()}, True),
        ({"LOCAL_RANK": "0", DRIVER_HOST: "another"}, False),
    ],
)
def test_the_rank_that_reports_is_on_the_host_of_the_driver(environ, whether):
    assert reports(environ) is whether


def test_srun_is_told_what_the_job_has():
    batch = {"SLURM_JOB_NODELIST": "n[1-4]", "SLURMD_NODENAME": "n1"}
    assert srun_words(1, {}) == []
    assert "--nodelist=n1" in srun_words(2, batch), "the driver's node is one of them"
    assert "--nodelist=n1" not in srun_words(4, batch)
    assert "--overlap" in srun_words(4, batch | {"SLURM_STEP_ID": "0"})


def test_srun_keeps_what_it_has_to_know_and_nothing_else_does():
    before = {"SLURM_JOB_ID": "7", "SLURM_EXPORT_ENV": "NONE", "DTK_STRATEGY": "fsdp", "RANK": "3"}
    ours = {"OMP_NUM_THREADS": "2", "PYTHONUNBUFFERED": "1"}
    assert clean_environment(before, 2) == ours
    assert clean_environment(before, 2, slurm=True) == ours | {"SLURM_JOB_ID": "7"}


def test_how_backends_communicate_is_recorded():
    assert interfaces({"GLOO_SOCKET_IFNAME": "eth0", "HOME": "/", "NCCL_IB_DISABLE": "1"}) == {
        "GLOO_SOCKET_IFNAME": "eth0",
        "NCCL_IB_DISABLE": "1",
    }
