"""Several nodes without a scheduler: what a node is told, what it looks up, what is refused."""

import socket
from dataclasses import replace

import pytest
from dtk_launch import meeting
from dtk_launch.errors import PlanError
from dtk_launch.meeting import Meeting, split_endpoint
from dtk_launch.torchrun import render

HERE = Meeting(("10.0.0.1",), True, "10.0.0.1")
THERE = Meeting(("10.0.0.1",), False, "10.0.0.2")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("n1", ("n1", 29400)),
        ("n1:20001", ("n1", 20001)),
        ("[fe80::1]:20001", ("fe80::1", 20001)),
        ("[fe80::1]", ("fe80::1", 29400)),
        ("10.0.0.1:29401", ("10.0.0.1", 29401)),
    ],
)
def test_endpoints(text, parts):
    assert split_endpoint(text) == parts


@pytest.mark.parametrize(
    "text", ["", ":29400", "n1:", "n1:x", "n1:80", "n1:70000", "fe80::1", "a b", "n1,n2", "$(id):20000 "]
)
def test_what_is_no_endpoint(text):
    with pytest.raises(PlanError, match="--rdzv="):
        split_endpoint(text)


def flags(plan):
    argv = render(plan).argv
    words = argv[1 : argv.index("--")]
    return dict(zip(words[::2], words[1::2], strict=True))


def test_a_node_by_hand(plan, facts):
    made = plan(facts(meeting=THERE), nodes="2", rdzv="n1:20001", nproc="2")
    seen = flags(made)
    assert (seen["--nnodes"], seen["--rdzv-endpoint"], seen["--rdzv-id"]) == ("2", "n1:20001", "train")
    assert seen["--rdzv-conf"] == "is_host=0,read_timeout=600,join_timeout=900"
    assert seen["--local-addr"] == "10.0.0.2"
    assert "--node-rank" not in seen
    assert (made.topology.node, made.topology.nproc) == ("10.0.0.2", 2)
    head = plan(facts(meeting=HERE), nodes="2", rdzv="n1:20001")
    assert flags(head)["--rdzv-conf"].startswith("is_host=1,")
    assert head.topology.node == "0"


def test_nodes_that_come_and_go(plan, facts):
    made = plan(facts(meeting=HERE), nodes="1:4", rdzv="n1", max_restarts=3, name="run 7")
    assert (flags(made)["--nnodes"], flags(made)["--rdzv-id"]) == ("1:4", "run 7")
    assert made.topology.elastic
    assert not plan(facts(meeting=HERE), nodes="2", rdzv="n1").topology.elastic


def test_two_nodes_on_one_machine(plan, facts):
    taken = replace(HERE, taken=True)
    second = plan(facts(meeting=taken), nodes="2", rdzv="localhost", node_rank=1)
    assert flags(second)["--rdzv-conf"].startswith("is_host=0,")
    assert second.topology.node == "1"
    with pytest.raises(PlanError, match=r"port 29400 of this machine is taken.*--node-rank 1"):
        plan(facts(meeting=taken), nodes="2", rdzv="localhost")


@pytest.mark.parametrize(
    ("given", "seen", "words"),
    [
        ({"nodes": "2"}, None, "--rdzv HOST"),
        ({"rdzv": "n1"}, HERE, "--rdzv is for several nodes"),
        ({"node_rank": 0}, None, "--node-rank is for several nodes"),
        ({"nodes": "1", "rdzv": "n1"}, HERE, "pass --nodes N, or drop it"),
        ({"nodes": "2", "rdzv": "n1", "node_rank": 2}, THERE, "--node-rank=2, but --nodes=2 has ranks 0 to 1"),
        ({"nodes": "2", "rdzv": "n1", "node_rank": 0}, THERE, "is not this machine"),
        ({"nodes": "1:2", "rdzv": "n1"}, HERE, "--max-restarts 3"),
        ({"nodes": "3:2", "rdzv": "n1"}, HERE, "MIN up to MAX"),
        ({"nodes": "0", "rdzv": "n1"}, HERE, "pass 1 or more"),
        ({"nodes": "two", "rdzv": "n1"}, HERE, "a number of 1 or more"),
        ({"nodes": "2", "rdzv": "n1"}, replace(THERE, problem="the name n1 is not known"), "n1 is not known"),
    ],
)
def test_what_is_refused(plan, facts, given, seen, words):
    with pytest.raises(PlanError, match=words):
        plan(facts(meeting=seen), **given)


@pytest.mark.parametrize("given", [{"rdzv": "n1"}, {"node_rank": 1}, {"nodes": "3:4"}])
def test_a_step_of_slurm_says_where_its_nodes_meet(plan, facts, step, given):
    with pytest.raises(PlanError, match=r"srun step"):
        plan(facts(allocation=step, meeting=HERE), **given)


def test_an_ephemeral_port_is_named(plan, facts):
    made = plan(facts(meeting=HERE), nodes="2", rdzv="n1:40000")
    (why,) = [d.why for d in made.decisions if d.key == "rendezvous"]
    assert "may be taken" in why


def test_looking_for_the_host():
    seen = meeting.look("localhost:20017")
    assert (seen.is_local, seen.taken, seen.problem) == (True, False, "")
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        assert meeting.look(f"127.0.0.1:{other.getsockname()[1]}").taken
    far = meeting.look("192.0.2.1")  # TEST-NET-1, nobody's
    assert not far.is_local
    assert "not known" in meeting.look("no-such-host.invalid").problem
