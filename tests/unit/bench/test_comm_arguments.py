import contextlib
import itertools
import subprocess
import sys
from pathlib import Path

import pytest
from bench_parts.arguments import UsageError
from bench_parts.elsewhere import CHECK
from comm_parts.arguments import parse
from comm_parts.ranks import command
from comm_parts.sizes import parse_sizes
from hypothesis import given
from hypothesis import strategies as st

BATCH = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n[1-2]", "SLURMD_NODENAME": "n1"}


def options(*argv, cores=4, gpus=0, environ=None):
    return parse(list(argv), cores=cores, gpus=gpus, environ=environ or {})


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("--operations all-reduec", "unknown operation 'all-reduec'; known: all-gather, all-reduce, broadcast"),
        ("--operations broadcast,broadcast", "names one twice; known: all-reduce"),
        ("--sizes big", "'big' is no size; pass for example 1K:64M, 1K:64M:2 (doubled), or 4K,1M"),
        ("--sizes 1M:1K", "--sizes '1M:1K': 1M is more than 1K; pass for example"),
        ("--sizes 1K:1M:1", "the factor '1' is not a whole number of 2 or more; pass for example"),
        ("--sizes 1K:1M:2:2", "is not MIN:MAX or MIN:MAX:FACTOR; pass for example"),
        ("--sizes 1K,1024", "has one size twice; pass for example"),
        ("--sizes 0", "'0' is no size; pass"),
        ("--sizes 4:64M --nproc 4", "--sizes 4:64M: 4 B is less than one float32 for each of 4 ranks; begin with 16 B"),
        ("--sizes 1T", "'1T' is no size"),
        ("--sizes 900000G", "and this machine has"),
        ("--backend mpi", "unknown backend 'mpi'; known: gloo, nccl"),
        ("--backend nccl", "--backend nccl, but there is no GPU here, and nccl needs one; pass --backend gloo"),
        ("--nproc 5", "--nproc 5 needs 5 cores, and 4 can be used; pass at most --nproc 4"),
        ("--nproc 1", "--nproc 1 on one node is one rank, which has nobody to send to by gloo; --nproc 2"),
        ("--nproc 0", "--nproc 0 is not a positive number"),
        ("--nodes 0", "--nodes 0 is not a positive number"),
        ("--nodes 2", "--nodes 2, but this is no allocation of SLURM; add --slurm to submit it"),
        ("--dtype int4", "unknown dtype 'int4'; known: bfloat16, float16, float32, float64"),
        ("--dtype float32,float16", "names several; pass one of float32, float64, float16, bfloat16"),
        ("--rounds 0", "--rounds 0 is not a positive number"),
        ("--iterations many", "--iterations many is neither auto nor a positive number"),
        ("--iterations 0", "--iterations 0 is neither auto nor a positive number"),
        ("--speed 3", "unrecognized arguments: --speed 3; dtk bench comm --help"),
    ],
)
def test_bad_input_is_one_message_that_says_what_to_do(argv, message):
    with pytest.raises(UsageError) as caught:
        options(*argv.split())
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        (BATCH | {"SLURM_JOB_NODELIST": "n1"}, "--nodes 2, but the allocation has 1 (SLURM_JOB_NODELIST=n1); pass"),
        (BATCH | {"SLURMD_NODENAME": "login"}, "has to run on a node of the allocation (n[1-2]), and this is login"),
        ({"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n[1-2]"}, "and this is none; add --slurm"),
        (BATCH | {"SLURM_JOB_NODELIST": "n[1-"}, "cannot read the node list 'n[1-'"),
    ],
)
def test_nodes_that_are_not_at_hand_are_refused(environ, message):
    with pytest.raises(UsageError) as caught:
        options("--nodes", "2", environ=environ)
    assert message in str(caught.value)


def test_defaults_fit_the_machine():
    assert (options().backends, options().nproc, options().device) == (("gloo",), 2, "cpu")
    chosen = options(gpus=2)
    assert (chosen.backends, chosen.nproc, chosen.device, chosen.threads) == (("nccl",), 2, "cuda", 2)
    both = options("--backend", "gloo,nccl", gpus=2)
    assert (both.backends, both.device) == (("gloo", "nccl"), "cuda")
    assert options("--backend", "gloo", gpus=1).nproc == 2
    assert options().sizes[0] == 16
    assert options().sizes[-1] == 64 * 2**20


def test_sizes_that_are_too_small_for_many_ranks_are_left_out_of_the_default():
    elsewhere = {CHECK: "{}"}  # this machine has not the memory for so many
    assert options("--nproc", "384", cores=384, environ=elsewhere).sizes[0] == 4096


def test_one_gpu_is_enough_for_nccl_alone():
    assert options(gpus=1).nproc == 1
    with pytest.raises(UsageError, match="--backend nccl alone can measure copies in one GPU"):
        options("--backend", "gloo,nccl", gpus=1)


def test_one_rank_on_each_node_is_enough():
    assert options("--nodes", "2", cores=1, environ=BATCH).nproc == 1


@pytest.mark.parametrize(
    ("text", "sizes"),
    [
        ("1K:64K", [1024, 4096, 16384, 65536]),
        ("8:64:2", [8, 16, 32, 64]),
        ("1k:3KiB:2", [1024, 2048]),
        ("1M, 4K", [4096, 2**20]),
        ("2G", [2 * 2**30]),
    ],
)
def test_sizes(text, sizes):
    assert list(parse_sizes(text)) == sizes


@given(st.integers(1, 10**6), st.integers(1, 10**6), st.integers(2, 50))
def test_a_range_goes_from_its_first_towards_its_last(low, more, factor):
    sizes = parse_sizes(f"{low}:{low + more}:{factor}")
    assert sizes[0] == low
    assert sizes[-1] <= low + more < sizes[-1] * factor
    assert all(after == factor * before for before, after in itertools.pairwise(sizes))


@given(st.text(max_size=12))
def test_any_text_is_sizes_or_a_usage_error(text):
    with contextlib.suppress(UsageError):
        sizes = parse_sizes(text)
        assert list(sizes) == sorted(set(sizes))
        assert sizes[0] > 0


def test_ranks_on_one_node_are_started_by_dtk_launch(tmp_path: Path):
    words = command(options("--nproc", "3", "--sizes", "1K,4K"), [], tmp_path / "run")
    assert words[:4] == [sys.executable, "-m", "dtk_launch", "launch"]
    assert "--nodes" in words[words.index(str(next(w for w in words if w.endswith("_comm_rank.py")))) :]
    assert words[words.index("--nproc") + 1] == "3"
    assert words[words.index("--sizes") + 1] == "1024,4096"


def test_ranks_on_several_nodes_are_started_by_srun(tmp_path: Path, monkeypatch):
    for name, value in {**BATCH, "SLURM_CPUS_PER_TASK": "3"}.items():
        monkeypatch.setenv(name, value)
    words = command(options("--nodes", "2", environ=BATCH), [], tmp_path / "run")
    assert words[:3] == ["srun", "--nodes=2", "--ntasks=2"]
    assert "--cpus-per-task=3" in words[: words.index("launch")]
    launch = words[words.index("launch") :]
    assert launch[launch.index("--nodes") + 1] == "2"


def test_ranks_go_on_where_an_interrupted_run_ended(tmp_path: Path):
    chosen = options("--operations", "broadcast", "--sizes", "1K,4K")
    among = {"backend": "gloo", "scope": "within", "operation": "broadcast"}
    done = [
        {"kind": "machine"},
        {"kind": "case", **among, "size": 1024, "iterations": 70},
        {"kind": "case", **among, "size": 4096, "iterations": 30},
        *[{"kind": "block", **among, "size": 1024}] * 5,
    ]
    words = command(chosen, done, tmp_path)
    assert words[words.index("--skip") + 1] == "5"
    assert words[words.index("--known") + 1] == "0=70,1=30"


def test_the_driver_needs_no_torch():
    check = "import sys; sys.path.insert(0, 'benchmarks'); import comm; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", check], check=True, timeout=60, cwd=Path(__file__).parents[3])
