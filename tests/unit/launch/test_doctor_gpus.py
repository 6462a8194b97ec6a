"""GPUs of machines that are not here: an nvidia-smi that is a script, and made-up answers."""

from dataclasses import replace

import pytest
from dtk_launch import facts
from dtk_launch.doctor import nvidia_smi
from dtk_launch.doctor.gpus import compare, judge
from dtk_launch.doctor.nvidia_smi import Gpu, Gpus, parse_driver, parse_gpus, parse_topology

H100 = Gpu("0", "NVIDIA H100 80GB HBM3", "81559", "4", "Default", "0", "Disabled", "No", "No")
GOOD = Gpus((H100, replace(H100, index="1")), "", 2, "seen", "580.65.06", "13.0", (("GPU0", "GPU1", "NV18"),))
HEAD = "| NVIDIA-SMI 580.65.06    Driver Version: 580.65.06    CUDA Version: 13.0     |\n"
TOPOLOGY = """\t\x1b[4mGPU0\tGPU1\tGPU2\tNIC0\tCPU Affinity\tNUMA Affinity\x1b[0m
GPU0\t X \tNV18\tSYS\tPIX\t0-15\t0
GPU1\tNV18\t X \tSYS\tNODE\t0-15\t0
GPU2\tSYS\tSYS\t X \tSYS\t16-31\t1
NIC0\tPIX\tNODE\tSYS\t X
"""
SMI = """case "$*" in
  *remapped_rows*) {full} ;;
  *--query-gpu=*) for n in 0 1; do echo "$n, NVIDIA H100 80GB HBM3, 81559, 4, Default"; done ;;
  *compute-apps*) echo '4711, 60000' ;;
  topo*) printf 'x\\tGPU0\\tGPU1\\nGPU0\\t X \\tSYS\\nGPU1\\tSYS\\t X \\n' ;;
  -L) echo 'GPU 0: NVIDIA H100 (UUID: GPU-1)'; echo 'GPU 1: NVIDIA H100 (UUID: GPU-2)' ;;
  '') echo 'Driver Version: 580.65.06    CUDA Version: 13.0' ;;
esac
"""


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A root folder with a driver and an nvidia-smi of this script; the function gives what the probe finds."""

    def make(script, driver=True):
        if driver:
            (tmp_path / "dev").mkdir()
            (tmp_path / "dev/nvidiactl").touch()
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\n{script}")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        return nvidia_smi.probe(tmp_path)

    return make


def levels(facts, nproc=2):
    return {finding.what: finding.level for finding in judge(facts, nproc)}


def test_a_machine_whose_driver_knows_all_fields(machine):
    row = "echo '{}, NVIDIA H100 80GB HBM3, 81559, 61004, Default, 3, [N/A], Yes, No'"
    facts = machine(SMI.format(full=f"{row.format(0)}; {row.format(1)}"))
    assert [gpu.index for gpu in facts.gpus] == ["0", "1"]
    assert (facts.gpus[0].ecc, facts.gpus[0].mig, facts.gpus[0].remap_failed) == ("3", "", "Yes")
    assert (facts.driver, facts.cuda, facts.processes) == ("580.65.06", "13.0", (4711,))
    assert facts.links == (("GPU0", "GPU1", "SYS"),)


def test_a_driver_that_refuses_newer_fields(machine):
    facts = machine(SMI.format(full="echo 'Field is not a valid field to query.' >&2; exit 2"))
    assert facts.error == ""
    bare = replace(H100, ecc="", mig="", remap_failed="", remap_pending="")
    assert facts.gpus == (bare, replace(bare, index="1"))


def test_a_driver_that_does_not_work(machine):
    facts = machine("echo 'Failed to initialize NVML: Driver/library version mismatch'; exit 18")
    assert levels(facts) == {"nvidia-smi: Failed to initialize NVML: Driver/library version mismatch": "problem"}


NO_DRIVER = "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver."


@pytest.fixture
def built_with_cuda(monkeypatch):
    monkeypatch.setattr(nvidia_smi, "installed_version", lambda _: "2.14.1")


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (f'echo "{NO_DRIVER} Make sure it runs."; exit 9', f"nvidia-smi: {NO_DRIVER} Make sure it runs."),
        ("exit 9", "nvidia-smi: exit code 9"),
        ("exec sleep 60", "nvidia-smi: no answer within 0.2 seconds"),
    ],
)
def test_an_nvidia_smi_without_a_driver(machine, monkeypatch, built_with_cuda, script, said):
    monkeypatch.setattr(facts, "_PATIENCE", 0.2)
    seen = machine(script, driver=False)
    assert levels(seen) == {f"no NVIDIA driver is loaded here; {said}": "warning"}
    (finding,) = judge(seen, 2)
    assert "modprobe nvidia" in finding.fix
    assert "--gpus all" in finding.fix


def test_gpus_on_the_bus_without_a_driver(tmp_path, monkeypatch, built_with_cuda):
    monkeypatch.setenv("PATH", str(tmp_path))
    for name, vendor, kind in (
        ("3b", "0x10de", "0x030200"),
        ("3c", "0x10de", "0x040300"),
        ("3d", "0x8086", "0x030000"),
    ):
        folder = tmp_path / f"sys/bus/pci/devices/0000:{name}:00.0"
        folder.mkdir(parents=True)
        (folder / "vendor").write_text(f"{vendor}\n")
        (folder / "class").write_text(f"{kind}\n")
    found = levels(nvidia_smi.probe(tmp_path))
    assert found == {"no NVIDIA driver is loaded here, and there is 1 NVIDIA GPU on the PCI bus": "warning"}
    monkeypatch.setattr(nvidia_smi, "installed_version", lambda _: "2.14.1+cpu")
    assert list(levels(nvidia_smi.probe(tmp_path)).values()) == ["ok"]


def test_gpus_that_nvidia_smi_alone_shows(machine, built_with_cuda):
    """WSL has neither /proc/driver/nvidia nor /dev/nvidiactl."""
    seen = machine(SMI.format(full="exit 2"), driver=False)
    assert (len(seen.gpus), seen.visible, seen.driver) == (2, 2, "580.65.06")


def test_no_gpu_is_fine_and_a_driver_without_nvidia_smi_is_not(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    facts = nvidia_smi.probe(tmp_path)
    assert list(levels(replace(facts, why="none"))) == ["none (none): ranks compute on the cores"]
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/nvidiactl").touch()
    assert "no nvidia-smi on PATH" in nvidia_smi.probe(tmp_path).error


def test_healthy_gpus_are_one_line():
    assert levels(GOOD) == {"2 x NVIDIA H100 80GB HBM3, driver 580.65.06; links NV18 (1 pairs)": "ok"}


@pytest.mark.parametrize(
    ("changes", "level", "said"),
    [
        ({"ecc": "7"}, "problem", "GPU 0 has 7 uncorrected ECC errors"),
        ({"remap_failed": "Yes"}, "problem", "run out of rows"),
        ({"remap_pending": "1"}, "warning", "rows to remap"),
        ({"mode": "Prohibited"}, "problem", "mode Prohibited"),
        ({"mode": "Exclusive_Process"}, "note", "one process at a time"),
        ({"mode": "Exclusive_Process", "used": "60000"}, "problem", "mode Exclusive_Process and in use"),
        ({"used": "60000"}, "warning", "60000 of 81559 MiB of GPU 0 are in use already (pids 4711)"),
        ({"mig": "Enabled"}, "note", "MIG"),
        ({"name": "NVIDIA A100"}, "warning", "not all of one model"),
    ],
)
def test_gpus_with_something(changes, level, said):
    facts = replace(GOOD, gpus=(replace(H100, **changes), GOOD.gpus[1]), processes=(4711,))
    assert [(found, level) for found in judge(facts, 2) if found.level == level and said in found.what]


def test_no_nvlink_p2p_switched_off_and_a_wrong_list_of_devices():
    assert (
        levels(replace(GOOD, links=(("GPU0", "GPU1", "SYS"),)))["no NVLink; through the host: GPU0-GPU1 SYS"] == "note"
    )
    assert levels(replace(GOOD, p2p_disabled="1")) == {"NCCL_P2P_DISABLE=1 is set": "warning"}
    wrong = replace(GOOD, visible=-1, why="CUDA_VISIBLE_DEVICES=9 names none of the 2 GPUs here; pass 0 to 1")
    assert levels(wrong)["CUDA_VISIBLE_DEVICES=9 names none of the 2 GPUs here"] == "problem"
    assert "3 ranks, and 2 GPUs are visible (seen)" in levels(GOOD, 3)


def test_the_matrix_of_links():
    assert parse_topology(TOPOLOGY) == (("GPU0", "GPU1", "NV18"), ("GPU0", "GPU2", "SYS"), ("GPU1", "GPU2", "SYS"))
    assert parse_topology("") == ()
    assert parse_driver(HEAD) == ("580.65.06", "13.0")
    assert parse_driver("nothing") == ("", "")
    assert parse_gpus("garbage\n\n1,2") == ()


def test_nodes_that_differ():
    seven = replace(GOOD, gpus=GOOD.gpus[:1], visible=1, driver="550.1")
    assert [finding.what for finding in compare({"n1": GOOD, "n2": seven})] == [
        "the nodes differ: 2 x NVIDIA H100 80GB HBM3 on n1; 1 x NVIDIA H100 80GB HBM3 on n2",
        "drivers differ: 580.65.06 on n1; 550.1 on n2",
    ]
