import os
import sys

import pytest
from dtk_launch.errors import PlanError
from dtk_launch.facts import HostFacts, count_cores, count_gpus, installed_version


@pytest.fixture
def root(tmp_path):
    """A made-up /proc and /sys."""

    def make(gpus=0, cpu_max=None):
        for number in range(gpus):
            (tmp_path / f"proc/driver/nvidia/gpus/0000:0{number}:00.0").mkdir(parents=True)
        if cpu_max:
            (tmp_path / "proc/self").mkdir(parents=True)
            (tmp_path / "proc/self/cgroup").write_text("12:cpu:/old\n0::/a/b\n")
            for folder, text in cpu_max.items():
                (tmp_path / "sys/fs/cgroup" / folder).mkdir(parents=True, exist_ok=True)
                (tmp_path / "sys/fs/cgroup" / folder / "cpu.max").write_text(text)
        return tmp_path

    return make


@pytest.mark.parametrize(
    ("visible", "number"),
    [(None, 4), ("", 0), ("0,2", 2), ("-1", 0), ("0,7,1", 1), ("GPU-8f2e,GPU-11aa", 2), (" 1 , 3 ", 2)],
)
def test_gpus_that_cuda_would_show(root, visible, number):
    environ = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    assert count_gpus(environ, root(gpus=4), "2.14.1").number == number


@pytest.mark.parametrize("visible", ["9", "4,0", "x", "cuda:0"])
def test_a_choice_of_gpus_that_is_none_is_refused(root, visible):
    with pytest.raises(PlanError, match=rf"CUDA_VISIBLE_DEVICES={visible} names none of the 4 GPUs.*from 0 to 3"):
        count_gpus({"CUDA_VISIBLE_DEVICES": visible}, root(gpus=4), "2.14.1")


def test_a_cpu_build_of_torch_sees_no_gpu(root):
    count = count_gpus({}, root(gpus=2), "2.14.1+cpu")
    assert (count.number, count.why) == (0, "torch 2.14.1+cpu is built without CUDA")


def test_nvidia_smi_is_asked_where_there_is_no_proc_entry(root, tmp_path, monkeypatch):
    program = tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho 'GPU 0: A (UUID: x)'; echo '  MIG 1g'; echo 'GPU 1: A (UUID: y)'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    assert count_gpus({}, root(), "2.14.1").number == 2
    monkeypatch.setenv("PATH", str(tmp_path))
    assert count_gpus({}, root(), "2.14.1").number == 0


def test_cores_are_the_tightest_limit(root):
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert count_cores({}, root()).number == affinity
    limited = root(cpu_max={"": "max 100000\n", "a": "150000 100000\n", "a/b": "max 100000\n"})
    count = count_cores({}, limited)
    assert (count.number, "cpu.max" in count.why) == (1, True)
    assert count_cores({"SLURM_CPUS_PER_TASK": "1"}, root()).number == 1


def test_probe_sees_this_python():
    facts = HostFacts.probe()
    assert facts.torch_version
    assert facts.torchrun[0].startswith(sys.prefix)
    assert facts.cores.number >= 1


def test_version_without_metadata():
    assert installed_version("no_such_distribution") is None
