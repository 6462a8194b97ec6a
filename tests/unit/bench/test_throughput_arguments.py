import importlib.util
import subprocess
import sys

import pytest
from bench_parts.arguments import UsageError
from bench_parts.records import RecordFile
from throughput_parts.arguments import parse
from throughput_parts.cases import Workload
from throughput_parts.modes import command, rank_environment


def options(*argv, cores=4, gpus=0):
    return parse(["--models", "mlp", *argv], cores=cores, gpus=gpus)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (
            "--strategies dp,dpd",
            "unknown strategy 'dpd'; known: ddp, ddp-bf16, dp, fsdp, single, zero1, zero2, zero3; ",
        ),
        (
            "--models resnet",
            "unknown model 'resnet'; known: bert-like, dcgan, gpt2-like, mlp, resnet18, resnet50, vgg11; did you mean",
        ),
        ("--models mlp,mlp", "--models 'mlp,mlp' names one twice; known: mlp, resnet18"),
        ("--strategies ,", "--strategies ',' names none; known: single, dp, ddp"),
        ("--precision fp64", "unknown precision 'fp64'; known: bf16, fp16, fp32, tf32"),
        ("--precision tf32", "--precision tf32 needs a GPU, and none is used; known without one: fp32, bf16, fp16"),
        ("--size huge", "argument --size: invalid choice: 'huge' (choose from"),
        ("--nproc 5", "--nproc 5 needs 5 cores, and 4 can be used; pass at most --nproc 4"),
        ("--nproc 1,5", "--nproc 5 needs 5 cores, and 4 can be used; pass at most --nproc 4"),
        ("--nproc 0", "--nproc 0 is not a positive number"),
        ("--nproc 2,2", "--nproc 2,2 names a number twice"),
        ("--nproc two", "--nproc two: 'two' is not a number; write --nproc N or N,M"),
        ("--nproc 3 --global-batch-size 64", "cannot be divided evenly among 3 ranks; pass 63 or 66"),
        ("--nproc 2,3 --global-batch-size 64", "cannot be divided evenly among 2 or 3 ranks; pass 60 or 66"),
        ("--nproc 3 --global-batch-size 2", "cannot be divided evenly among 3 ranks; pass 3"),
        ("--global-batch-size -8", "--global-batch-size -8 is not a positive number"),
        (
            "--global-batch-size 8 --scaling weak",
            "--global-batch-size does not go with --scaling weak; pass --batch",
        ),
        ("--batch-per-rank 8", "--batch-per-rank does not go with --scaling strong; pass --global-batch-size, or"),
        ("--models dcgan --nproc 4 --global-batch-size 4", "leaves a rank 1 of dcgan's samples, and batch normalis"),
        ("--rounds 0", "--rounds 0 is not a positive number"),
        ("--at-once 0", "--at-once 0 is not a positive number"),
        ("--block-seconds nan", "--block-seconds nan is not a positive number of seconds"),
        ("--memory-limit 0", "--memory-limit 0.0 is not a positive number of GiB"),
        (
            "--find-batch --memory-limit 0.3",
            "--memory-limit 0.3, but ddp x2 on mlp needs about 1.7 GiB (2 x 0.85 GiB a process); pass ",
        ),
        ("--memory-limit .3 --strategies single", "single x1 on mlp needs about 0.85 GiB (1 x 0.85 GiB"),
        ("--memory-limit 1e6", "--memory-limit 1e+06, and "),
        ("--seed -1", "--seed -1 is not between"),
        ("--device cuda", "--device cuda, but there is no GPU here; pass --device cpu"),
        ("--speed 3", "unrecognized arguments: --speed 3"),
    ],
)
def test_bad_input_is_one_message_that_says_what_to_do(argv, message):
    with pytest.raises(UsageError) as caught:
        options(*argv.split())
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_limit_that_is_enough_or_that_limits_no_gpu_is_taken():
    assert options("--find-batch", "--memory-limit", "2.0").room_gib == 2.0
    assert options("--find-batch", "--memory-limit", "0.3", "--nproc", "2", gpus=2).room_gib == 0.3


def test_more_ranks_than_gpus():
    with pytest.raises(UsageError, match=r"--nproc 2 needs 2 GPUs, and 1 can be used; .* or --device cpu"):
        options("--nproc", "2", gpus=1)
    assert options("--nproc", "2", "--device", "cpu", gpus=1).gpus == 0


def test_what_needs_a_package_that_is_missing(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"resnet18 needs torchvision.*'dist-toolkit\[bench\]', or pass --models mlp"):
        options("--models", "resnet18")
    with pytest.raises(UsageError, match=r"zero2 needs deepspeed.*\[deepspeed\]', or pass --strategies single,dp,ddp"):
        options("--strategies", "ddp,zero2")


@pytest.mark.parametrize(("cores", "nproc", "dp", "ddp"), [(2, 2, 2, 1), (5, 2, 4, 2), (8, 3, 6, 2), (1, 1, 1, 1)])
def test_every_strategy_gets_the_same_number_of_cores(cores, nproc, dp, ddp):
    given = options("--nproc", str(nproc), "--strategies", "dp,ddp,single", cores=cores)
    modes = {mode.strategy: mode for work in given.workloads() for mode in given.modes(work)}
    assert (modes["dp"].threads, modes["ddp"].threads, modes["single"].threads) == (dp, ddp, ddp)
    assert modes["ddp"].processes * modes["ddp"].threads == modes["dp"].threads


def test_defaults():
    given = parse([], cores=4, gpus=0)
    assert (given.strategies, given.models, given.nproc) == (("dp", "ddp"), ("mlp", "resnet18"), (2,))
    assert (given.device, given.size, given.precision) == ("cpu", "small", ("fp32",))
    assert parse([], cores=1, gpus=0).nproc == (1,)
    assert parse([], cores=8, gpus=3).nproc == (3,)
    assert parse([], cores=8, gpus=3).size == "full"
    assert list(options("--nproc", "3").workloads()) == [Workload("mlp", "fp32", 513)]


def test_every_model_precision_and_batch_is_a_workload():
    given = options("--models", "mlp,dcgan", "--precision", "fp32,bf16", "--global-batch-size", "16,32")
    assert len(list(given.workloads())) == 8
    weak = options("--scaling", "weak", "--batch-per-rank", "7", "--nproc", "4,1")
    assert weak.nproc == (1, 4)
    assert [mode.global_batch_size for mode in weak.modes(next(weak.workloads()))] == [7, 28, 7, 28]


def test_the_environment_of_another_run_is_kept_out():
    outer = {
        "PATH": "/bin",
        "RANK": "3",
        "MASTER_ADDR": "a",
        "SLURM_NNODES": "2",
        "DTK_RUN_DIR": "x",
        "PET_NNODES": "2",
    }
    made = rank_environment(outer, options(), mode_of("ddp"))
    assert made == {"PATH": "/bin", "OMP_NUM_THREADS": "2", "PYTHONUNBUFFERED": "1", "DTK_DEVICE": "cpu"}


def mode_of(strategy):
    given = options("--strategies", strategy)
    return given.modes(next(given.workloads()))[0]


def test_only_strategies_with_ranks_are_launched(tmp_path):
    assert "launch" not in command(options(), mode_of("dp"), tmp_path)
    launched = command(options(), mode_of("zero2"), tmp_path)
    assert launched[1:6] == ["-m", "dtk_launch", "launch", "--nproc", "2"]
    assert launched[launched.index("--run-dir") + 2 :][:2] == ["--strategy", "deepspeed"]


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot write to --out"):
        RecordFile(tmp_path / "file" / "out", [])


def test_the_driver_needs_no_torch():
    code = "import sys; sys.path.insert(0, 'benchmarks'); import throughput; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
