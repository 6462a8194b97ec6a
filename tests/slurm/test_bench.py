"""`dtk bench NAME --slurm` on a real cluster of two nodes."""

import json
import sys

import pytest

pytestmark = pytest.mark.slurm


def dtk(cluster, *words, cwd, check=True):
    command = [sys.executable, "-m", "dtk_launch", *map(str, words)]
    return cluster.run(command, cwd=cwd, check=check, env={"OMP_NUM_THREADS": "1"})


def records_of(folder):
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


def test_collectives_across_nodes_to_their_report(cluster, tmp_path):
    words = ["bench", "comm", "--slurm", "--nodes", "2", "--nproc", "1", "--sizes", "1K,64K", "--rounds", "2"]
    words += ["--operations", "all-reduce,broadcast", "--time", "5", "--out", "out"]
    said = dtk(cluster, *words, cwd=tmp_path).stdout.splitlines()
    job_id = int(said[0])
    assert f"results: {tmp_path / 'out'}" in said
    job = cluster.wait_job(job_id, timeout=150)
    assert job.state == "COMPLETED", job.log

    records = records_of(tmp_path / "out")
    assert [r["kind"] for r in records if r["kind"] not in ("block", "case", "idle")] == ["machine", "setup", "end"]
    assert records[1]["nodes"] == records[1]["ranks"] == 2
    assert records[1]["one_machine"] is True
    cases = [r for r in records if r["kind"] == "case"]
    assert {(r["scope"], r["ranks"], r["right"]) for r in cases} == {("across", 2, True)}
    assert sum(r["kind"] == "block" for r in records) == 2 * len(cases) == 8
    assert [r["round"] for r in records if r["kind"] == "idle"] == [1, 2], "what others do is seen of one machine"
    assert "gloo across nodes, 2 ranks on 2 nodes" in (tmp_path / "out" / "report.md").read_text()
    assert not list((tmp_path / "out").glob(".ranks-*")), "what the ranks kept for themselves is removed"

    assert "report: out/report.md" in dtk(cluster, "logs", job_id, cwd=tmp_path).stdout
    assert "completed" in dtk(cluster, "status", job_id, cwd=tmp_path).stdout


@pytest.mark.slow
def test_a_cancelled_job_keeps_what_it_measured_and_another_goes_on(cluster, tmp_path):
    words = ["bench", "comm", "--slurm", "--nodes", "2", "--nproc", "2", "-c", "2", "--sizes", "1K"]
    words += ["--operations", "broadcast", "--rounds", "30", "--time", "5", "--out", "out"]
    out = tmp_path / "out"
    first = int(dtk(cluster, *words, cwd=tmp_path).stdout.splitlines()[0])
    cluster.wait_until(
        lambda: (out / "results.jsonl").exists() and (out / "results.jsonl").read_text().count('"block"') > 6,
        "some blocks",
        timeout=120,
    )
    again = dtk(cluster, *words, cwd=tmp_path, check=False)
    assert again.returncode == 2
    assert f"job {first} still has the run {out}" in again.stderr
    assert "pass another --out" in again.stderr
    cluster.run(["scancel", str(first)])
    cluster.wait_job(first, timeout=60)
    assert records_of(out)[-1] == {"kind": "end", "status": "interrupted"}
    before = [r for r in records_of(out) if r["kind"] == "block"]

    second = int(dtk(cluster, *words, "--resume", cwd=tmp_path).stdout.splitlines()[0])
    job = cluster.wait_job(second, timeout=150)
    assert job.state == "COMPLETED", job.log
    blocks = [r for r in records_of(out) if r["kind"] == "block"]
    whole = before[: len(before) // 2 * 2]  # a round has one within nodes, and one across them
    assert blocks[: len(whole)] == whole
    assert before[-1] in whole or before[-1] not in blocks
    assert {r["scope"] for r in blocks} == {"within", "across"}
    assert len({(r["round"], r["scope"]) for r in blocks}) == len(blocks) == 2 * 30


@pytest.mark.slow
def test_an_allocation_that_is_there_is_used(cluster, tmp_path):
    """By a batch script of one's own; on the login node of the same job it is refused."""
    bench = f"{sys.executable} -m dtk_launch bench comm --nodes 2 --nproc 1 --sizes 1K --rounds 1 --out out"
    script = f"#!/bin/bash\nexec {bench} --operations broadcast\n"
    job = cluster.wait_job(cluster.submit(script, "--nodes=2", cwd=tmp_path), timeout=150)
    assert job.state == "COMPLETED", job.log
    assert records_of(tmp_path / "out")[-1]["status"] == "complete"
    done = cluster.run(["salloc", "--nodes=2", "--quiet", *bench.split()], cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert "has to run on a node of the allocation" in done.stderr


@pytest.mark.slow
def test_a_benchmark_of_one_node_is_a_job_too(cluster, tmp_path):
    words = ["bench", "heartbeat", "--slurm", "--rounds", "2", "--steps", "2", "--step-ms", "1", "--out", "out"]
    job = cluster.wait_job(int(dtk(cluster, *words, cwd=tmp_path).stdout.splitlines()[0]), timeout=150)
    assert job.state == "COMPLETED", job.log
    assert records_of(tmp_path / "out")[-1]["status"] == "complete"


@pytest.mark.slow
def test_strategies_take_turns_in_a_job(cluster, tmp_path):
    words = ["bench", "throughput", "--slurm", "-c", "2", "--time", "5", "--models", "mlp", "--strategies", "dp,ddp"]
    words += ["--nproc", "2", "--rounds", "1", "--block-seconds", "0.1", "--out", "out"]
    job = cluster.wait_job(int(dtk(cluster, *words, cwd=tmp_path).stdout.splitlines()[0]), timeout=240)
    assert job.state == "COMPLETED", job.log
    records = records_of(tmp_path / "out")
    assert records[-1]["status"] == "complete"
    blocks = [(r["strategy"], r["round"]) for r in records if r["kind"] == "block"]
    assert sorted(blocks) == [("ddp", 0), ("ddp", 1), ("dp", 0), ("dp", 1)]
    assert {r["ranks"] for r in records if r["kind"] == "setup"} == {1, 2}
    assert "DDP" in (tmp_path / "out" / "report.md").read_text()


SCRIPT = """
import argparse

import torch

parser = argparse.ArgumentParser()
parser.add_argument("--batch-size", type=int)
parser.add_argument("--time", type=int)
given = parser.parse_args()
assert given.time == 7
model = torch.nn.Linear(8, 8)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
for _ in range(1000):
    model(torch.ones(given.batch_size, 8)).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
"""


@pytest.mark.slow
def test_advice_for_a_script_comes_from_a_job(cluster, tmp_path):
    """What stands behind the script is the script's, `--time` too."""
    (tmp_path / "train.py").write_text(SCRIPT)
    words = ["bench", "advise", "--slurm", "-c", "2", "--time", "5", "--nproc", "1", "--strategies", "single"]
    words += ["--batch", "4,8", "--rounds", "1", "--warmup", "1", "--steps", "3", "--seconds", "1", "--out", "out"]
    words += ["train.py", "--batch-size", "{batch}", "--time", "7"]
    job = cluster.wait_job(int(dtk(cluster, *words, cwd=tmp_path).stdout.splitlines()[0]), timeout=240)
    assert job.state == "COMPLETED", job.log
    records = records_of(tmp_path / "out")
    assert records[-1]["status"] == "complete"
    assert [r["batch"] for r in records if r["kind"] == "seen"] == [4, 8]
    assert "train.py --batch-size" in (tmp_path / "out" / "report.md").read_text()
