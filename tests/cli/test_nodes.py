"""Several nodes without a scheduler: two network namespaces of this machine, each with an address of its own."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import uuid

import pytest

pytestmark = [
    pytest.mark.cli,
    pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("ip"), reason="network namespaces need root and iproute2"),
]

MEET = """
import os, sys, time, torch, torch.distributed as dist
dist.init_process_group("gloo")
world = torch.ones(1)
dist.all_reduce(world)
print("world", int(world), "of", os.environ["WORLD_SIZE"], flush=True)
{then}
dist.destroy_process_group()
"""


class Nodes:
    """Two nodes on a cable; `launch` starts dtk on one of them."""

    def __init__(self, folder, dtk):
        tag = uuid.uuid4().hex[:6]
        self.names = [f"dtk{tag}-{number}" for number in (1, 2)]
        self.folder, self.started, self._dtk = folder, [], dtk
        for name in self.names:
            self._ip("netns", "add", name)
        self._ip(
            "link", "add", f"a{tag}", "netns", self.names[0], "type", "veth", "peer", f"b{tag}", "netns", self.names[1]
        )
        for number, (name, link) in enumerate(zip(self.names, (f"a{tag}", f"b{tag}"), strict=True), 1):
            self._ip("-n", name, "link", "set", link, "name", "cable0")
            self._ip("-n", name, "addr", "add", f"10.78.0.{number}/24", "dev", "cable0")
            for device in ("lo", "cable0"):
                self._ip("-n", name, "link", "set", device, "up")

    @staticmethod
    def _ip(*words):
        done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"ip {' '.join(words)}: {done.stderr.strip()}")

    def launch(self, node, *options, nproc="1", environ=None):
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("DTK_", "PET_", "OMP_"))}
        words = [
            "ip",
            "netns",
            "exec",
            self.names[node],
            self._dtk,
            "launch",
            "--rdzv",
            "10.78.0.1:29407",
            "--nproc",
            nproc,
        ]
        run = subprocess.Popen(
            [*words, "--env", "GLOO_SOCKET_IFNAME=cable0", *options, "script.py"],
            cwd=self.folder, env=clean | (environ or {}),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        self.started.append(run)
        return run

    def cut(self, node):
        """The power of a node: no packet tells the other."""
        self._ip("-n", self.names[node], "link", "set", "cable0", "down")
        os.kill(self.started[node].pid, signal.SIGKILL)

    def dtk(self, *words):
        return subprocess.run([self._dtk, *words], cwd=self.folder, capture_output=True, text=True, check=True)

    def close(self):
        for run in self.started:
            with contextlib.suppress(ProcessLookupError):
                os.kill(run.pid, signal.SIGKILL)
            run.communicate()
        for name in self.names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


@pytest.fixture
def nodes(tmp_path):
    from tests.cli.conftest import DTK

    made = None
    try:
        made = Nodes(tmp_path, DTK)
        yield made
    finally:
        if made is not None:
            made.close()


def test_a_late_node_joins_and_a_failing_one_ends_the_other(nodes, until):
    (nodes.folder / "script.py").write_text(
        MEET.format(then="if os.environ['RANK'] == '1': raise OSError('no disk')\ntime.sleep(600)")
    )
    second = nodes.launch(1, "--nodes", "2")
    until(lambda: (nodes.folder / "runs/script/nodes").is_dir(), "the node that is not the meeting's is there first")
    first = nodes.launch(0, "--nodes", "2")
    ends = [run.communicate(timeout=90) for run in (first, second)]
    assert [run.returncode for run in (first, second)] == [1, 1]
    said = "".join(err for _, err in ends)
    host = socket.gethostname().partition(".")[0]
    lines = [f"[{host}:{rank}] world 2 of 2" for rank in (0, 1)]
    assert sorted(line for out, _ in ends for line in out.splitlines()) == lines
    verdict = json.loads((nodes.folder / "runs/script/verdict.json").read_text())
    assert (verdict["culprit"]["rank"], verdict["culprit"]["message"]) == (1, "no disk")
    assert said.count("failed first: OSError: no disk (exit code 1)") == 1
    assert said.count("ended because rank 1 on") == 1
    shown = [nodes.dtk(*words).stdout.splitlines() for words in (("top", "script"), ("logs", "script", "--out"))]
    assert shown[0][0] == "script: failed (1): rank 1: OSError: no disk (exit code 1)"
    assert [row.split()[:2] for row in shown[0][3:]] == [["0", host], ["1", host]]
    assert shown[1] == lines


@pytest.mark.slow
@pytest.mark.parametrize("nodes_option", ["2", "1:2"])
def test_a_hang_on_the_second_node_is_named_by_both_and_ends_both(nodes, nodes_option):
    hangs = "if (os.environ['NODE'], os.environ['LOCAL_RANK']) == ('1', '0'): time.sleep(600)"
    source = MEET.format(then=f"{hangs}\ndist.barrier()")
    (nodes.folder / "script.py").write_text(source)
    line = source[: source.index("time.sleep")].count("\n") + 1
    options = ("--nodes", nodes_option, "--hang-timeout", "2", "--on-hang", "stop")
    options += ("--max-restarts", "1") if nodes_option == "1:2" else ()
    own = [("--node-rank", str(node), "--env", f"NODE={node}") for node in (0, 1)]
    runs = [nodes.launch(node, *options, *own[node], nproc="2") for node in (0, 1)]
    said = [run.communicate(timeout=120)[1] for run in runs]
    assert [run.returncode for run in runs] == [124, 124], said
    run, node = nodes.folder / "runs/script", f"{socket.gethostname()} (node 1)"
    hang, verdict = (json.loads((run / name).read_text()) for name in ("hang.json", "verdict.json"))
    (odd,) = hang["odd"]
    assert [group["nodes"] for group in hang["groups"] if odd in group["ranks"]] == [[node]]
    words = f"rank {odd} on {node} sleeps in <module> (script.py:{line})"
    assert [text.count(words) for text in said] == [1, 1], said
    assert (verdict["exit_code"], verdict["hang"]["odd"], verdict["hang"]["summary"]) == (124, [odd], words)
    assert (verdict["culprit"], len(verdict["ranks"])) == (None, 4)


def test_a_node_without_power_ends_the_run(nodes, until):
    (nodes.folder / "script.py").write_text(
        MEET.format(then="while True:\n    dist.all_reduce(world)\n    time.sleep(0.05)")
    )
    logs = nodes.folder / "runs/script/ranks"
    first, _ = [nodes.launch(node, "--nodes", "2", environ={"DTK_NODE_TIMEOUT": "5"}) for node in (0, 1)]
    until(lambda: len([log for log in logs.glob("*.log") if "world 2 of 2" in log.read_text()]) == 2, "both train", 60)
    nodes.cut(1)
    _, said = first.communicate(timeout=60)
    assert first.returncode == 69, said
    host = socket.gethostname()
    assert f"dtk: {host} is lost: no word for 5 s; the run cannot go on" in said
    assert f"dtk: ended because {host} is lost; started again, it goes on" in said
    assert json.loads((nodes.folder / "runs/script/verdict.json").read_text())["exit_code"] == 69


@pytest.mark.slow
def test_a_node_goes_and_comes_back(nodes, until):
    (nodes.folder / "script.py").write_text(
        MEET.format(then="while not os.path.exists('stop'):\n    dist.all_reduce(world)\n    time.sleep(0.05)")
    )
    elastic = ("--nodes", "1:2", "--max-restarts", "5")

    def worlds():
        logs = (nodes.folder / "runs/script/ranks").glob("*.log")
        return [line for log in logs for line in log.read_text().splitlines()]

    first, second = nodes.launch(0, *elastic), nodes.launch(1, *elastic)
    until(lambda: worlds().count("world 2 of 2") == 2, "both nodes are there", 60)
    os.kill(second.pid, signal.SIGKILL)
    until(lambda: "world 1 of 1" in worlds(), "the first goes on alone", 120)
    back = nodes.launch(1, *elastic)
    until(lambda: worlds().count("world 2 of 2") == 4, "both are there again", 120)
    (nodes.folder / "stop").touch()
    assert [run.wait(60) for run in (first, back)] == [0, 0]
