"""`dtk bench throughput`, `dtk bench overhead` and `dtk bench checkpoint` as a user runs them, with real ranks."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.cli

THROUGHPUT = [sys.executable, "-m", "dtk_launch", "bench", "throughput"]
TINY = ["--strategies", "dp,ddp", "--models", "mlp", "--nproc", "2", "--device", "cpu", "--global-batch-size", "32"]

needs_two_cores = pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two cores")
needs_proc = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds processes in /proc")


def processes_with(mark: str) -> list[str]:
    """Command lines of the processes whose environment holds `mark`."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (folder / "environ").read_bytes():
                found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:  # it has ended
            continue
    return found


@pytest.fixture
def mark(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A value for the environment of what the test starts; nothing that has it may be left."""
    value = f"mark-{uuid.uuid4()}"
    with tempfile.TemporaryDirectory(prefix="t-") as short:  # a killed driver leaves its temporary folder
        monkeypatch.setenv("TMPDIR", short)
        yield value
        deadline = time.monotonic() + 5
        while (left := processes_with(value)) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert left == []


def start(argv: list[str], mark: str, cwd: Path, program: list[str] = THROUGHPUT) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*program, *argv],
        env={**os.environ, "TEST_MARK": mark},
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def records_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


@pytest.mark.slow
@needs_two_cores
@needs_proc
def test_dp_and_ddp_take_turns_on_the_same_work(tmp_path, mark):
    process = start([*TINY, "--rounds", "2", "--block-seconds", "0.2", "--out", "out", "--json"], mark, tmp_path)
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    assert "\x1b" not in stdout + stderr

    records = records_of(tmp_path / "out")
    kinds = [r["kind"] for r in records if r["kind"] != "phases"]
    assert kinds == ["machine", "model", "setup", "setup", "steps", *["block"] * 6, "end"]
    blocks = [r for r in records if r["kind"] == "block"]
    assert [b["strategy"] for b in blocks] == ["dp", "ddp", "ddp", "dp", "dp", "ddp"]
    assert len({b["steps"] for b in blocks}) == 1
    assert [r["ranks"] for r in records if r["kind"] == "setup"] == [1, 2]
    parts = {r["strategy"]: set(r["parts"]) for r in records if r["kind"] == "phases"}
    step = {"data", "forward", "backward", "optimizer"}
    assert parts == {"dp": step, "ddp": step | {"communication"}}

    # The same work: after equally many steps the loss is the same.
    for number in range(3):
        first, second = (b["loss"] for b in blocks if b["round"] == number)
        assert first == pytest.approx(second, rel=1e-3)

    assert [mode["strategy"] for mode in json.loads(stdout)["workloads"][0]["modes"]] == ["dp", "ddp"]
    report = (tmp_path / "out" / "report.md").read_text()
    assert "DataParallel is here one process with the same" in report


ALL = ["single", "dp", "ddp", "ddp-bf16", "fsdp", "zero1", "zero2", "zero3"]
SMALL = ["--nproc", "2", "--device", "cpu", "--block-seconds", "0.2", "--out", "out", "--rounds", "1"]


@pytest.mark.slow
@needs_two_cores
@needs_proc
@pytest.mark.timeout(900)
@pytest.mark.parametrize("model", ["mlp", "resnet18", "resnet50", "vgg11", "bert-like", "gpt2-like", "dcgan"])
def test_every_strategy_does_the_same_work(tmp_path, mark, model):
    for package in ("deepspeed", "torchvision", "transformers"):
        if importlib.util.find_spec(package) is None:  # importing DeepSpeed sets environment variables
            pytest.skip(f"needs {package}")
    argv = ["--strategies", ",".join(ALL), "--models", model, "--at-once", "8", *SMALL]
    if model != "dcgan":
        argv += ["--global-batch-size", "8"]
    process = start(argv, mark, tmp_path)
    _, stderr = process.communicate(timeout=600)
    assert process.returncode == 0, stderr
    records = records_of(tmp_path / "out")
    blocks = {r["strategy"]: r for r in records if r["kind"] == "block" and not r["warmup"]}
    assert list(blocks) == ALL[1:] + ALL[:1]
    if model in (
        "mlp",
        "vgg11",
        "bert-like",
        "gpt2-like",
    ):  # batch normalisation sees other batches, a GAN draws its noise
        assert len({round(block["loss"], 2) for block in blocks.values()}) == 1
    parts = {r["strategy"]: r["parts"] for r in records if r["kind"] == "phases"}
    assert {name for name, found in parts.items() if "communication" in found} == {*ALL} - {"single", "dp"}


@pytest.mark.slow
@needs_two_cores
@needs_proc
def test_an_interrupted_run_is_gone_on_with(tmp_path, mark):
    argv = [*TINY, "--rounds", "6", "--block-seconds", "0.5", "--out", "out"]
    process = start(argv, mark, tmp_path)
    wait_for_blocks(process, tmp_path / "out", 5)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    before = records_of(tmp_path / "out")
    assert before[-1] == {"kind": "end", "status": "interrupted"}

    process = start([*argv, "--resume"], mark, tmp_path)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    after = records_of(tmp_path / "out")
    stays, (*_, last) = whole_rounds_of(before, 2)
    assert [r for r in after if r["kind"] == "block"][: len(stays)] == stays, "whole rounds are kept"
    assert last in stays or last not in after, "one that was cut off is measured anew"
    blocks = [(r["strategy"], r["round"]) for r in after if r["kind"] == "block"]
    assert sorted(blocks) == sorted((name, number) for name in ("dp", "ddp") for number in range(7))
    assert [r["kind"] for r in after].count("steps") == 1
    assert len({r["steps"] for r in after if r["kind"] == "block"}) == 1

    process = start([*argv[:-4], "--block-seconds", "0.6", "--out", "out", "--resume"], mark, tmp_path)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "--block-seconds 0.5, now 0.6" in stderr


@pytest.mark.slow
@needs_two_cores
@needs_proc
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_one_rank_and_two_with_a_batch_of_their_own_in_16_bits(tmp_path, mark, precision):
    words = ["--strategies", "single,ddp", "--models", "mlp", "--scaling", "weak", "--batch-per-rank", "16"]
    words += ["--precision", f"fp32,{precision}", *SMALL, "--nproc", "1,2", "--json"]
    process = start(words, mark, tmp_path)
    stdout, stderr = process.communicate(timeout=200)
    assert process.returncode == 0, stderr
    works = json.loads(stdout)["workloads"]
    assert [work["precision"] for work in works] == ["fp32", precision]
    for work in works:
        sizes = {(mode["strategy"], mode["nproc"]): mode["global_batch_size"] for mode in work["modes"]}
        assert sizes == {("single", 1): 16, ("ddp", 1): 16, ("ddp", 2): 32}
        assert [mode["scaled_from"] for mode in work["modes"]] == ["", "", "ddp x1"]


@pytest.mark.slow
@needs_two_cores
@needs_proc
@pytest.mark.timeout(500)
def test_the_largest_batch_below_a_limit(tmp_path, mark):
    limit = ["--strategies", "ddp", "--find-batch", "--memory-limit", "2.5"]
    process = start([*TINY, *SMALL[4:], *limit, "--json"], mark, tmp_path)
    stdout, stderr = process.communicate(timeout=400)
    assert process.returncode == 0, stderr
    (fit,) = json.loads(stdout)["largest_batches"]
    assert fit["strategy"] == "ddp"
    assert fit["per_process"] > 16, "more than the batch that was trained with"
    assert fit["mib"] <= 2.5 * 1024
    assert "### The largest batch that fits" in (tmp_path / "out" / "report.md").read_text()


@needs_two_cores
@needs_proc
@pytest.mark.slow
def test_an_interrupted_run_keeps_what_it_measured(tmp_path, mark):
    process = start([*TINY, "--rounds", "9999", "--block-seconds", "0.05", "--out", "out"], mark, tmp_path)
    wait_for_blocks(process, tmp_path / "out", 6)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGINT, stderr
    assert records_of(tmp_path / "out")[-1] == {"kind": "end", "status": "interrupted"}
    report = (tmp_path / "out" / "report.md").read_text()
    assert "**The run was interrupted.**" in report
    assert "DDP on 2 ranks" in report


@pytest.mark.slow
@needs_two_cores
@needs_proc
def test_a_strategy_that_dies_leaves_the_others_to_be_measured(tmp_path, mark):
    process = start([*TINY, "--rounds", "12", "--block-seconds", "0.3", "--out", "out"], mark, tmp_path)
    wait_for_blocks(process, tmp_path / "out", 2)
    kill_rank_1(mark)
    _, stderr = process.communicate(timeout=90)
    assert process.returncode == 1, stderr
    assert "ddp x2 on mlp fp32 32 failed (exit code" in stderr
    assert "rank 1" in stderr, "the launcher's own words are shown"
    kept = tmp_path / "out" / "failed" / "ddp-x2-on-mlp-fp32-32"
    assert (kept / "run" / "ranks" / "1.err").exists()
    assert f"its output: out/failed/{kept.name}/run/ranks/1.err" in stderr
    records = records_of(tmp_path / "out")
    assert records[-1] == {"kind": "end", "status": "failed", "failed": "ddp x2 on mlp fp32 32"}
    (failed,) = (r for r in records if r["kind"] == "failed")
    assert (failed["strategy"], failed["why"]) == ("ddp", "dtk: rank 1 failed first: killed by SIGKILL")
    assert {r["round"] for r in records if r["kind"] == "block" and r["strategy"] == "dp"} == set(range(13))
    report = (tmp_path / "out" / "report.md").read_text()
    assert "**Not all could be measured**: 1 failed, see below." in report


@pytest.mark.slow
@needs_two_cores
@needs_proc
def test_nothing_outlives_a_driver_that_was_killed(tmp_path, mark):
    process = start([*TINY, "--rounds", "9999", "--block-seconds", "0.05", "--out", "out"], mark, tmp_path)
    wait_for_blocks(process, tmp_path / "out", 2)
    process.kill()
    process.communicate(timeout=60)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (
            ["--models", "mpl"],
            "dtk bench throughput: error: unknown model 'mpl'; known: bert-like, dcgan, ",
        ),
        (["--models", "mlp", "--out", "file/out"], "dtk bench throughput: error: cannot write to --out file/out"),
    ],
)
def test_bad_input_starts_nothing(tmp_path, argv, message):
    (tmp_path / "file").touch()
    done = subprocess.run([*THROUGHPUT, *argv], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(message)
    assert len(done.stderr.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def whole_rounds_of(records: list[dict], size: int) -> tuple[list[dict], list[dict]]:
    """The blocks of whole rounds, which have `size` of them, and all blocks."""
    blocks = [r for r in records if r["kind"] == "block"]
    return blocks[: len(blocks) // size * size], blocks


def wait_for_blocks(process: subprocess.Popen[str], folder: Path, count: int) -> None:
    deadline = time.monotonic() + 90
    path = folder / "results.jsonl"
    while not path.exists() or path.read_text().count('"block"') < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def kill_rank_1(mark: str) -> None:
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            environ = (folder / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if f"TEST_MARK={mark}".encode() in environ and b"RANK=1" in environ:
            os.kill(int(folder.name), signal.SIGKILL)
            return
    raise AssertionError("rank 1 is not there")


OVERHEAD = [sys.executable, "-m", "dtk_launch", "bench", "overhead"]


@pytest.mark.slow
@needs_two_cores
@needs_proc
def test_the_hand_written_loop_has_the_options_of_dist_toolkit(tmp_path, mark):
    """At the full width: its gradients do not fit into torch's first bucket of 1 MiB."""
    loops = ["--loops", "hand,hand-options,dtk", "--feeds", "memory", "--rounds", "1", "--steps", "2"]
    argv = [*loops, "--nproc", "2", "--device", "cpu", "--out", "out"]
    _, stderr = (process := start(argv, mark, tmp_path, OVERHEAD)).communicate(timeout=120)
    assert process.returncode == 0, stderr
    calls = {r["loop"]: r["collectives"] for r in records_of(tmp_path / "out") if r["kind"] == "weights"}
    assert calls == {"hand": 2, "hand-options": 1, "dtk": 1}


ALL_LOOPS = ["hand", "hand-view", "hand-options", "dtk", "dtk-noguard", "dtk-log", "dtk-steps", "accelerate"]


@pytest.mark.slow
@needs_two_cores
@needs_proc
@pytest.mark.parametrize(
    "loops",
    [["hand", "hand-options", "dtk", "dtk-noguard", "dtk-steps"], ALL_LOOPS],
    ids=["some", "all"],
)
def test_overhead_of_loops_that_do_the_same_work(tmp_path, mark, loops):
    """Structure only: a quick run has no times that count. Fabric is left out: its import takes ten seconds."""
    if "accelerate" in loops:
        pytest.importorskip("accelerate")
    argv = ["--quick", "--nproc", "2", "--device", "cpu", "--loops", ",".join(loops), "--out", "out", "--json"]
    process = start(argv, mark, tmp_path, OVERHEAD)
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    assert "\x1b" not in stdout + stderr

    records = records_of(tmp_path / "out")
    assert [r["kind"] for r in records if r["kind"] not in ("block", "weights", "guard")] == ["machine", "setup", "end"]
    blocks = [r for r in records if r["kind"] == "block"]
    in_memory, with_loader = {*loops} - {"dtk-steps"}, {*loops} - {"hand-view", "dtk-noguard", "dtk-log"}
    for number in range(3):
        turns = [(b["feed"], b["loop"]) for b in blocks if b["round"] == number]
        assert sorted(turns) == sorted([*(("memory", n) for n in in_memory), *(("loader", n) for n in with_loader)])
    assert len({tuple(b["loop"] for b in blocks if b["round"] == number) for number in range(3)}) > 1

    weights = {(r["feed"], r["loop"]): r for r in records if r["kind"] == "weights"}
    assert all(weights["memory", name]["identical"] for name in in_memory)
    assert all(weights["loader", name]["difference"] < 1e-5 for name in with_loader)
    assert {weights["memory", name]["collectives"] for name in ("hand", "hand-options", "dtk")} == {1}
    assert [r["kind"] for r in records].count("guard") == 1

    feeds = {feed["feed"]: feed["loops"] for feed in json.loads(stdout)["feeds"]}
    assert [loop["loop"] for loop in feeds["memory"]] == [name for name in loops if name in in_memory]
    report = (tmp_path / "out" / "report.md").read_text()
    assert "the times mean nothing" in report
    assert report.count("| identical |") >= len(in_memory) - 1


@pytest.mark.slow
@needs_two_cores
@needs_proc
def test_an_interrupted_overhead_run_keeps_what_it_measured(tmp_path, mark):
    """By the code that the interrupted runs of throughput (the driver) and checkpoint (its ranks) go through too."""
    argv = ["--loops", "dtk-steps", "--width", "8", "--steps", "2", "--rounds", "99999", "--device", "cpu"]
    process = start([*argv, "--nproc", "2", "--out", "out"], mark, tmp_path, OVERHEAD)
    wait_for_blocks(process, tmp_path / "out", 8)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGINT, stderr
    assert records_of(tmp_path / "out")[-1] == {"kind": "end", "status": "interrupted"}
    assert "**The run was interrupted.**" in (tmp_path / "out" / "report.md").read_text()


@pytest.mark.slow
@needs_two_cores
@needs_proc
def test_an_overhead_run_with_a_dead_rank_ends(tmp_path, mark):
    argv = ["--loops", "dtk", "--feeds", "memory", "--width", "8", "--rounds", "99999", "--device", "cpu"]
    process = start([*argv, "--nproc", "2", "--out", "out"], mark, tmp_path, OVERHEAD)
    wait_for_blocks(process, tmp_path / "out", 2)
    kill_rank_1(mark)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 1, stderr
    assert "the ranks failed (exit code" in stderr
    assert "rank 1" in stderr, "the launcher's own words are shown"
    assert (tmp_path / "out" / "failed" / "run" / "ranks" / "1.err").exists()
    assert records_of(tmp_path / "out")[-1] == {"kind": "end", "status": "failed"}


def test_overhead_refuses_bad_input_and_explains_itself(tmp_path):
    def run(*argv: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*OVERHEAD, *argv], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)

    done = run("--loops", "dkt")
    assert done.returncode == 2
    assert done.stderr.startswith("dtk bench overhead: error: unknown loop 'dkt'; known: ")
    assert list(tmp_path.iterdir()) == []
    assert "dtk-steps     dist_toolkit with rt.loader in ckpt.steps" in run("--help").stdout


CHECKPOINT = [sys.executable, "-m", "dtk_launch", "bench", "checkpoint"]


@pytest.mark.slow
@needs_two_cores
@needs_proc
def test_checkpoints_that_give_back_the_same_bytes(tmp_path, mark):
    """Structure only: a quick run has no times that count. Fabric is left out: its import takes ten seconds."""
    methods = ["plain", "dtk", "dtk-background", "torch.save", "dcp", "dcp-async"]
    methods += ["accelerate"] if importlib.util.find_spec("accelerate") else []
    argv = ["--quick", "--nproc", "2", "--methods", ",".join(methods), "--dir", ".", "--out", "out", "--json"]
    process = start(argv, mark, tmp_path, CHECKPOINT)
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    assert "\x1b" not in stdout + stderr
    assert [path.name for path in tmp_path.iterdir()] == ["out"], "the checkpoints are removed"

    records = records_of(tmp_path / "out")
    assert [r["kind"] for r in records if r["kind"] != "block"] == ["machine", "setup", "end"]
    blocks = [r for r in records if r["kind"] == "block"]
    turns = {(b["round"], b["case"], b["method"], b["phase"]) for b in blocks}
    assert len(turns) == len(blocks) == 2 * 2 * (3 * len(methods) + 1)
    assert all(b["same"] for b in blocks if b["phase"] in ("load", "cold"))
    assert {b["method"] for b in blocks if "stall" in b} == {"dtk-background", "dcp-async"}
    assert all(0 < b["stall"] <= b["seconds"] for b in blocks if "stall" in b)

    found = {case["case"]: case["methods"] for case in json.loads(stdout)["cases"]}
    assert [method["method"] for method in found["large"]] == methods
    assert all(method["same"] for case in found.values() for method in case)
    report = (tmp_path / "out" / "report.md").read_text()
    assert "the times mean nothing" in report
    assert "did not give back" not in report


@pytest.mark.slow
@needs_two_cores
@needs_proc
def test_an_interrupted_checkpoint_run_leaves_its_records_and_no_files(tmp_path, mark):
    argv = ["--methods", "torch.save", "--cases", "small", "--tensors", "20", "--settle", "0", "--rounds", "99999"]
    process = start([*argv, "--nproc", "2", "--out", "out"], mark, tmp_path, CHECKPOINT)
    wait_for_blocks(process, tmp_path / "out", 8)
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, stderr
    assert records_of(tmp_path / "out")[-1] == {"kind": "end", "status": "interrupted"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_checkpoint_refuses_bad_input_and_explains_itself(tmp_path):
    def run(*argv: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*CHECKPOINT, *argv], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
        )

    done = run("--dir", "nowhere")
    assert done.returncode == 2
    assert done.stderr == (
        "dtk bench checkpoint: error: --dir nowhere is not a directory that can be written to; pass another --dir\n"
    )
    assert list(tmp_path.iterdir()) == []
    assert "dtk-background  dist_toolkit: `save(wait=False)`" in run("--help").stdout


COMM = [sys.executable, "-m", "dtk_launch", "bench", "comm"]


@needs_two_cores
@needs_proc
def test_collectives_that_give_the_right_results(tmp_path, mark):
    """Structure only."""
    argv = ["--sizes", "1K,100K", "--rounds", "2", "--iterations", "2", "--nproc", "2", "--backend", "gloo"]
    process = start([*argv, "--out", "out", "--json"], mark, tmp_path, COMM)
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    assert "\x1b" not in stdout + stderr

    records = records_of(tmp_path / "out")
    cases = [r for r in records if r["kind"] == "case"]
    assert len(cases) == 4 * 2
    assert all(r["right"] and r["ranks"] == 2 for r in cases)
    blocks = [(r["round"], r["operation"], r["size"]) for r in records if r["kind"] == "block"]
    assert len(set(blocks)) == len(blocks) == 2 * len(cases)
    assert all(r["mean_seconds"] <= r["seconds"] for r in records if r["kind"] == "block")
    (part,) = json.loads(stdout)["parts"]
    assert {case["operation"] for case in part["cases"]} == {"all-reduce", "all-gather", "reduce-scatter", "broadcast"}
    assert (tmp_path / "out" / "bandwidth-gloo-within.svg").exists()
    assert "gloo within a node, 2 ranks" in (tmp_path / "out" / "report.md").read_text()


@pytest.mark.slow
@needs_two_cores
@needs_proc
def test_an_interrupted_comm_run_goes_on_where_it_ended(tmp_path, mark):
    argv = ["--sizes", "1K,4K", "--operations", "all-reduce,broadcast", "--rounds", "30", "--nproc", "2"]
    argv += ["--backend", "gloo", "--out", "out"]
    process = start(argv, mark, tmp_path, COMM)
    wait_for_blocks(process, tmp_path / "out", 6)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGINT, stderr
    stays, (*_, last) = whole_rounds_of(records_of(tmp_path / "out"), 4)

    process = start([*argv, "--resume"], mark, tmp_path, COMM)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    records = records_of(tmp_path / "out")
    blocks = [r for r in records if r["kind"] == "block"]
    assert blocks[: len(stays)] == stays, "whole rounds are kept"
    assert last in stays or last not in blocks, "one that was cut off is measured anew"
    assert len({(r["round"], r["operation"], r["size"]) for r in blocks}) == len(blocks) == 30 * 4
    assert len({(r["operation"], r["size"], r["iterations"]) for r in blocks}) == 4, "blocks are as long as they were"
    assert [r["kind"] for r in records if r["kind"] not in ("block", "idle", "case")] == ["machine", "setup", "end"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("--nodes 2", "dtk bench comm: error: --nodes 2, but this is no allocation of SLURM; add --slurm"),
        ("--resume --out no --slurm", "dtk: error: dtk bench comm: --resume, but no holds no results.jsonl"),
        ("--resume --overwrite", "dtk bench comm: error: argument --overwrite: not allowed with argument --resume; "),
        ("--operations all-redcue --slurm", "dtk: error: dtk bench comm: unknown operation 'all-redcue'; known: "),
    ],
)
def test_comm_refuses_bad_input_here_and_before_the_queue(tmp_path, argv, message):
    outside = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
    done = subprocess.run(
        [*COMM, *argv.split()], cwd=tmp_path, env=outside, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith(message)
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
