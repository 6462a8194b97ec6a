"""Limits of made-up machines and containers."""

from dataclasses import replace

import pytest
from dtk_launch.doctor import limits, ports
from dtk_launch.doctor.limits import Limits, compare, judge

GIB = 1 << 30
GOOD = Limits((65536, 65536), (-1, -1), (8 << 20, 8 << 20), (64 * GIB, 64 * GIB), 128 * GIB, None, None, 16, "seen", "")


def judged(facts, nproc=2, gpus=0, infiniband=False):
    return list(judge(facts, nproc, gpus, infiniband))


def test_a_good_machine_is_two_lines():
    assert [(finding.level, finding.what) for finding in judged(GOOD)] == [
        ("ok", "open files 65536, /dev/shm 64 GiB, memory 128 GiB"),
        ("ok", "OMP_NUM_THREADS is not set: dtk launch sets 8 for 2 ranks on 16 cores (seen)"),
    ]


@pytest.mark.parametrize(
    ("changes", "around", "level", "said"),
    [
        ({"files": (1024, 65536)}, {}, "warning", "1024 open files"),
        ({"files": (64, 64)}, {}, "problem", "64 open files"),
        ({"processes": (512, 512)}, {}, "warning", "(ulimit -u)"),
        ({"pids_limit": 100}, {}, "warning", "100 processes and threads (pids.max of the cgroup)"),
        ({}, {"infiniband": True}, "problem", "8 MiB of locked memory (ulimit -l)"),
        ({"locked": (2 * GIB, -1)}, {"infiniband": True}, "warning", "2 GiB of locked memory (ulimit -l)"),
        ({"locked": (64 * GIB, 64 * GIB)}, {"infiniband": True}, "ok", "open files"),
        ({"locked": (-1, -1)}, {"infiniband": True}, "ok", "open files"),
        ({"shm": (0, 0)}, {}, "warning", "there is no /dev/shm"),
        ({"shm": (64 << 20, 64 << 20)}, {}, "warning", "/dev/shm has 64 MiB"),
        ({"shm": (64 << 20, 64 << 20)}, {"gpus": 8}, "problem", "/dev/shm has 64 MiB"),
        ({"shm": (64 * GIB, 1 << 20)}, {}, "problem", "1 MiB free"),
        ({"memory_limit": 2 * GIB}, {}, "warning", "the cgroup's memory limit is 2 GiB"),
        ({"omp": "16"}, {}, "warning", "OMP_NUM_THREADS=16 x 2 ranks are more than 16 cores"),
        ({"omp": "1"}, {}, "note", "each of 2 ranks could have 8"),
        ({"omp": "many"}, {}, "problem", "no number of threads"),
        ({"omp": "8"}, {}, "ok", "OMP_NUM_THREADS=8 x 2 ranks on 16 cores"),
    ],
)
def test_machines_with_something(changes, around, level, said):
    found = judged(replace(GOOD, **changes), **around)
    assert [finding for finding in found if finding.level == level and said in finding.what]
    assert all(finding.level in (level, "ok") for finding in found)


def test_what_can_be_raised_is_told_how():
    assert judged(replace(GOOD, files=(1024, 524288)))[0].fix == "ulimit -n 65536 before the launch"
    assert "limits.conf" in judged(replace(GOOD, files=(1024, 1024)))[0].fix


@pytest.mark.parametrize("version", [1, 2])
def test_the_limits_of_a_container(tmp_path, version):
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text("MemTotal:  1048576 kB\nMemFree: 1 kB\n")
    if version == 2:
        (tmp_path / "proc/self/cgroup").write_text("0::/job/step\n")
        outer = inner = tmp_path / "sys/fs/cgroup/job"
        inner = outer / "step"
        names = ("memory.max", "max", outer / "pids.max")
    else:
        (tmp_path / "proc/self/cgroup").write_text("4:memory:/job/step\n3:pids:/job\n")
        outer, inner = tmp_path / "sys/fs/cgroup/memory/job", tmp_path / "sys/fs/cgroup/memory/job/step"
        names = ("memory.limit_in_bytes", str(2**63 - 4096), tmp_path / "sys/fs/cgroup/pids/job/pids.max")
    inner.mkdir(parents=True)
    names[2].parent.mkdir(parents=True, exist_ok=True)
    (outer / names[0]).write_text(f"{GIB}\n")
    (inner / names[0]).write_text(f"{names[1]}\n")
    names[2].write_text("200\n")
    facts = limits.probe(tmp_path)
    assert (facts.memory, facts.memory_limit, facts.pids_limit, facts.shm) == (GIB, GIB, 200, (0, 0))


def test_this_machine_and_nodes_that_differ():
    facts = limits.probe()
    assert facts.cores >= 1
    assert facts.memory is None or facts.memory > 0
    (finding,) = compare({"n1": GOOD, "n2": replace(GOOD, cores=8)})
    assert (finding.check, finding.what) == ("threads", "the nodes differ: 16 cores on n1; 8 cores on n2")


def test_more_ranks_than_cores_is_one_warning_whatever_the_threads():
    for omp in ("", "1", "8"):
        (found,) = limits.judge_threads(replace(GOOD, omp=omp, cores=2), 8)
        assert (found.level, found.what.partition(" cores")[0]) == ("warning", "8 ranks on 2")
        assert "OMP_NUM_THREADS=" not in found.fix


def test_a_port_that_is_none_is_not_free_as_well():
    found = list(ports.judge("99999", ()))
    assert [finding.level for finding in found] == ["ok"]
    assert "99999" not in found[0].what
