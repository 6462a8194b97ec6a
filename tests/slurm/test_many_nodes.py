"""Four nodes with two ranks each, over links as slow as between cities, with everything that real sites get wrong."""

import json
import re
import sys

import pytest

pytestmark = pytest.mark.slurm

REDUCE = """
import json, os, socket
import torch, torch.distributed as dist
dist.init_process_group("gloo")
x = torch.full((1 << 18,), float(dist.get_rank() + 1))
dist.all_reduce(x)
said = {"host": socket.gethostname(), "rank": dist.get_rank(), "world": dist.get_world_size(), "sum": x[-1].item()}
print("@" + json.dumps(said) + "@", flush=True)
dist.destroy_process_group()
"""
SAY = """
import json, os, socket
said = {"host": socket.gethostname(), "rank": int(os.environ["RANK"]), "world": int(os.environ["WORLD_SIZE"])}
print("@" + json.dumps(said) + "@", flush=True)
"""
LATE = '#!/bin/sh\n[ "$(hostname)" != n1 ] || sleep 5\n'
ECHO = """
import socket, sys, threading, time
if sys.argv[1] == "serve":
    with socket.create_server(("0.0.0.0", 9100)) as server:
        there, _ = server.accept()
        left = 1 << 21
        while left:
            left -= len(there.recv(1 << 16))
        there.sendall(b"x")
else:
    deadline = time.monotonic() + 20
    while True:
        begin = time.monotonic()
        try:
            there = socket.create_connection(("n1", 9100))
            break
        except OSError:
            if time.monotonic() > deadline:
                raise
    print("connected", time.monotonic() - begin)
    begin = time.monotonic()
    there.sendall(bytes(1 << 21))
    there.recv(1)
    print("sent", time.monotonic() - begin)
"""


@pytest.fixture(scope="module")
def far_apart(make_cluster, tmp_path_factory):
    """Four nodes, 10 ms and 100 Mbit/s apart; tasks on n1, where the nodes meet, start five seconds late."""
    prolog = tmp_path_factory.mktemp("site") / "prolog.sh"
    prolog.write_text(LATE)
    prolog.chmod(0o755)
    with make_cluster(NODES=4, RATE="100mbit", DELAY=10, CONF=f"TaskProlog={prolog}") as cluster:
        yield cluster


def test_packets_take_their_time(far_apart, tmp_path):
    program = tmp_path / "echo.py"
    program.write_text(ECHO)
    command = f'[ "$SLURMD_NODENAME" = n1 ] && way=serve || way=ask; exec {sys.executable} {program} $way'
    out = far_apart.run(["srun", "--nodes=2", "--overcommit", "bash", "-c", command]).stdout
    took = {name: float(seconds) for name, seconds in re.findall(r"(\w+) ([\d.]+)", out)}
    assert took["connected"] >= 0.020  # there and back, which nothing can make shorter
    assert took["sent"] >= ((1 << 21) - (256 << 10)) * 8 / 100e6  # all but the bucket of the limit


@pytest.mark.slow
def test_two_jobs_at_once_on_nodes_without_names_over_slow_links_whose_head_is_late(far_apart, tmp_path):
    hosts = far_apart.directory / "etc" / "hosts"
    known = hosts.read_text()
    try:
        hosts.write_text("127.0.0.1 localhost\n")  # the same file on every node: now they know no name
        jobs = [submitted(far_apart, tmp_path, name, text) for name, text in (("reduce", REDUCE), ("say", SAY))]
        ended = [far_apart.wait_job(job, timeout=200) for job in jobs]
    finally:
        hosts.write_text(known)
    for job, ranks in zip(ended, (8, 4), strict=True):
        assert (job.state, job.exit_code, job.nodes) == ("COMPLETED", "0:0", "n[1-4]"), job.log
        said = sorted((json.loads(line) for line in re.findall(r"@(\{.*\})@", job.log)), key=lambda one: one["rank"])
        assert [(one["rank"], one["world"]) for one in said] == [(rank, ranks) for rank in range(ranks)]
        assert [one["host"] for one in said] == [f"n{1 + rank * 4 // ranks}" for rank in range(ranks)]
        assert {one.get("sum", 36.0) for one in said} == {36.0}


def submitted(cluster, cwd, name, text):
    """The id of a job on all four nodes that shares them with others."""
    (cwd / f"{name}.py").write_text(text)
    options = ["--nodes", "4", "--nproc", "2" if name == "reduce" else "1", "--time", "00:05:00", "--name", name]
    command = [sys.executable, "-m", "dtk_launch", "submit", *options, "--sbatch", "oversubscribe", "--sbatch"]
    done = cluster.run([*command, "overcommit", f"{name}.py"], cwd=cwd, env={"OMP_NUM_THREADS": "1"})
    return int(done.stdout.split()[0])
