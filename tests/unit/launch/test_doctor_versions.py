"""Versions that do not fit, of made-up machines; and what torch itself says, of the real one."""

from dataclasses import replace

import pytest
from dtk_launch.doctor import asked, versions
from dtk_launch.doctor.asked import Torch
from dtk_launch.doctor.specifiers import allows
from dtk_launch.doctor.versions import Versions, compare, judge, runs_on

ASKED = Torch("", "13.0", "2.30.7", True, 1, ("9.0",), ("sm_80", "sm_90", "compute_120"), ("gloo", "nccl"))
GOOD = Versions("3.11.7", "/env/bin/python", "0.1.0", "2.14.1", "13.0", "2.30.7", ASKED)


def found(facts, driver="13.0", gpus=1):
    return list(judge(facts, driver, gpus))


def only(facts, driver="13.0", gpus=1):
    (finding,) = found(facts, driver, gpus)
    return finding


def test_what_fits_is_one_line():
    assert only(GOOD).level == "ok"
    assert only(GOOD).what == "Python 3.11.7, torch 2.14.1 (CUDA 13.0, NCCL 2.30.7), dtk 0.1.0"
    assert only(replace(GOOD, cuda="", nccl="", asked=None), gpus=0).what.endswith("torch 2.14.1 (no CUDA), dtk 0.1.0")


@pytest.mark.parametrize(
    ("torch", "said"), [("", "torch is not installed for /env/bin/python"), ("2.9.1", "torch 2.9.1")]
)
def test_no_torch_or_an_old_one(torch, said):
    finding = only(replace(GOOD, torch=torch))
    assert finding.level == "problem"
    assert said in finding.what
    assert "2.10" in finding.fix


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"python": "3.9.18", "dtk_python": ">=3.10"}, "Python is 3.9.18, and dist-toolkit 0.1.0 needs >=3.10"),
        (
            {"python": "3.15.0", "torch_python": ">=3.10, <3.15"},
            "Python is 3.15.0, and torch 2.14.1 needs >=3.10, <3.15",
        ),
        ({"python": "3.11.7", "torch_python": ">=3.10,!=3.11.*"}, "torch 2.14.1 needs >=3.10,!=3.11.*"),
    ],
)
def test_a_python_for_which_a_package_is_not_made(changes, said):
    finding = only(replace(GOOD, **changes))
    assert finding.level == "problem"
    assert said in finding.what


def test_the_python_of_here_fits():
    here = versions.probe()
    assert here.torch_python.startswith(">=3.")
    assert only(replace(GOOD, python=here.python, torch_python=here.torch_python, dtk_python=">=3.10")).level == "ok"


@pytest.mark.parametrize(
    ("text", "version", "fits"),
    [
        ("", "3.11.7", True), (">=3.10", "3.11.7", True), (">=3.10.*", "3.9.0", True), ("==3.11.*", "3.11.7", True),
        ("!=3.9.*", "3.9.1", False), ("what?", "3.11.7", True), (">=3.10", "3.13.0rc1", True),
        (">=3.12", "3.11.9+", False),
    ],
)  # fmt: skip
def test_the_release_decides_and_what_is_not_understood_fits(text, version, fits):
    assert allows(text, version) is fits


def test_a_driver_older_than_the_cuda_of_torch():
    finding = only(replace(GOOD, asked=replace(ASKED, cuda_available=False, capabilities=())), driver="12.4")
    assert finding.level == "problem"
    assert finding.what == "the driver can CUDA 12.4, torch 2.14.1 is built for 13.0"
    assert "CUDA 12.x" in finding.fix


def test_an_older_driver_that_torch_can_use_all_the_same_is_no_problem():
    """NVIDIA's package for forward compatibility."""
    assert only(GOOD, driver="12.4").level == "ok"


def test_a_driver_that_fits_and_no_gpu_for_torch():
    finding = only(replace(GOOD, asked=replace(ASKED, cuda_available=False, capabilities=())))
    assert "is_available() is false" in finding.what


def test_a_build_without_cuda_and_without_code_for_the_gpu():
    assert only(replace(GOOD, torch="2.14.1+cpu", cuda="", asked=replace(ASKED, nccl=""))).level == "warning"
    old = only(replace(GOOD, asked=replace(ASKED, capabilities=("7.0",))))
    assert old.level == "problem"
    assert old.what == "GPU 0 is sm_70, and torch 2.14.1 has code for sm_80, sm_90, compute_120"


@pytest.mark.parametrize(
    ("capability", "architectures", "runs"),
    [
        ("8.6", ("sm_80",), True),
        ("8.0", ("sm_86",), False),
        ("9.0", ("sm_80",), False),
        ("12.1", ("sm_90", "compute_120"), True),
        ("10.3", ("sm_100a",), True),
        ("9.4", ("gfx942",), True),
        ("9.0", ("compute_80",), True),
    ],
)
def test_binary_compatibility_of_cuda(capability, architectures, runs):
    assert runs_on(capability, architectures) is runs


def test_an_import_that_fails_and_another_libnccl():
    broken = only(replace(GOOD, asked=Torch(error="OSError: libcudart.so.13: cannot open shared object file")))
    assert broken.level == "problem"
    assert "libcudart.so.13" in broken.what
    shadowed = only(replace(GOOD, asked=Torch(error="x"), torch_file="/home/ada/torch/__init__.py"))
    assert "imported from /home/ada/torch/__init__.py" in shadowed.fix
    other = only(replace(GOOD, asked=replace(ASKED, nccl="2.21.5")))
    assert other.level == "warning"
    assert other.what == "torch has loaded NCCL 2.21.5, and the package beside it is 2.30.7"


def test_nodes_that_differ():
    other = replace(GOOD, torch="2.13.0", python="3.10.1", asked=replace(ASKED, nccl="2.21.5"))
    said = {finding.what: finding.level for finding in compare({"n1": GOOD, "n2": GOOD, "n3": other})}
    assert said == {
        "torch differs: 2.14.1 on n1, n2; 2.13.0 on n3": "problem",
        "NCCL differs: 2.30.7 on n1, n2; 2.21.5 on n3": "problem",
        "Python differs: 3.11.7 on n1, n2; 3.10.1 on n3": "warning",
    }
    assert list(compare({"n1": GOOD, "n2": GOOD})) == []


def test_the_versions_of_this_python_are_read_without_torch():
    import sys

    facts = versions.probe()
    assert facts.python == sys.version.split()[0]
    assert facts.torch[:2] == "2."
    assert facts.asked is None
    assert facts.torch_file.endswith("torch/__init__.py")
    assert "torch" not in sys.modules or sys.modules["torch"].__file__ == facts.torch_file


def test_a_torch_that_does_not_answer_or_dies(tmp_path, monkeypatch):
    script = tmp_path / "rank.py"
    monkeypatch.setattr(asked, "RANK", script)
    script.write_text("import time; time.sleep(60)")
    assert "not over after 0.2 seconds" in asked.ask_torch(0.2).error
    script.write_text("import os; os.write(2, b'libc10.so: bad ELF'); os._exit(3)")
    assert asked.ask_torch().error == "exit code 3: libc10.so: bad ELF"
    script.write_text("import os; os.kill(os.getpid(), 11)")
    assert asked.ask_torch().error == "killed by SIGSEGV: no words"
    script.write_text('print("noise"); print(\'{"cuda": "13.0", "devices": 1, "capabilities": ["9.0"]}\')')
    assert asked.ask_torch() == Torch(cuda="13.0", devices=1, capabilities=("9.0",))
