import importlib.util
import subprocess
import sys

import pytest
from bench_parts.arguments import UsageError
from bench_parts.records import RecordFile
from throughput_parts.arguments import parse
from throughput_parts.modes import command, rank_environment


def options(*argv, cores=4, gpus=0):
    return parse(["--models", "mlp", *argv], cores=cores, gpus=gpus)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("--strategies dp,dpd", "unknown strategy 'dpd'; known: ddp, dp, single; did you mean"),
        ("--models resnet", "unknown model 'resnet'; known: mlp, resnet18; did you mean resnet18?"),
        ("--models mlp,mlp", "--models 'mlp,mlp' names one twice; known: mlp, resnet18"),
        ("--strategies ,", "--strategies ',' names none; known: single, dp, ddp"),
        ("--nproc 5", "--nproc 5 needs 5 cores, and 4 can be used; pass at most --nproc 4"),
        ("--nproc 0", "--nproc 0 is not a positive number"),
        ("--nproc two", "argument --nproc: invalid int value: 'two'"),
        ("--nproc 3 --global-batch-size 64", "cannot be divided evenly among 3 ranks; pass 63 or 66"),
        ("--nproc 3 --global-batch-size 2", "cannot be divided evenly among 3 ranks; pass 3"),
        ("--global-batch-size -8", "--global-batch-size -8 is not a positive number"),
        ("--rounds 0", "--rounds 0 is not a positive number"),
        ("--block-seconds nan", "--block-seconds nan is not a positive number of seconds"),
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


def test_more_ranks_than_gpus():
    with pytest.raises(UsageError, match=r"--nproc 2 needs 2 GPUs, and 1 can be used; .* or --device cpu"):
        options("--nproc", "2", gpus=1)
    assert options("--nproc", "2", "--device", "cpu", gpus=1).gpus == 0


def test_a_model_whose_package_is_missing(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"resnet18 needs torchvision.*'dist-toolkit\[bench\]', or pass --models mlp"):
        options("--models", "resnet18")


@pytest.mark.parametrize(("cores", "nproc", "dp", "ddp"), [(2, 2, 2, 1), (5, 2, 4, 2), (8, 3, 6, 2), (1, 1, 1, 1)])
def test_every_strategy_gets_the_same_number_of_cores(cores, nproc, dp, ddp):
    given = options("--nproc", str(nproc), cores=cores)
    assert (given.threads("dp"), given.threads("single"), given.threads("ddp")) == (dp, dp, ddp)
    assert given.ranks("ddp") * given.threads("ddp") == given.threads("dp")


def test_defaults():
    given = parse([], cores=4, gpus=0)
    assert (given.strategies, given.models, given.nproc, given.device) == (("dp", "ddp"), ("mlp", "resnet18"), 2, "cpu")
    assert parse([], cores=1, gpus=0).nproc == 1
    assert parse([], cores=8, gpus=3).nproc == 3
    assert options("--nproc", "3").batches == {"mlp": 513}


def test_the_environment_of_another_run_is_kept_out():
    outer = {
        "PATH": "/bin",
        "RANK": "3",
        "MASTER_ADDR": "a",
        "SLURM_NNODES": "2",
        "DTK_RUN_DIR": "x",
        "PET_NNODES": "2",
    }
    made = rank_environment(outer, options(), "ddp")
    assert made == {"PATH": "/bin", "OMP_NUM_THREADS": "2", "PYTHONUNBUFFERED": "1", "DTK_DEVICE": "cpu"}


def test_only_strategies_with_ranks_are_launched(tmp_path):
    assert "launch" not in command(options(), "mlp", "dp", tmp_path)
    launched = command(options(), "mlp", "ddp", tmp_path)
    assert launched[1:6] == ["-m", "dtk_launch", "launch", "--nproc", "2"]


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot write to --out"):
        RecordFile(tmp_path / "file" / "out", [])


def test_the_driver_needs_no_torch():
    code = "import sys; sys.path.insert(0, 'benchmarks'); import throughput; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
