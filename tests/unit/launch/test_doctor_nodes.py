"""From the facts of nodes to one list of findings, and how the facts of a node come to the first."""

import json
import random
from dataclasses import replace

import pytest
from dtk_launch.doctor import over_nodes, report
from dtk_launch.doctor.allreduce import Said
from dtk_launch.doctor.asked import Torch
from dtk_launch.doctor.clock import Contact, Hosting
from dtk_launch.doctor.filesystem import Filesystem
from dtk_launch.doctor.findings import Finding, differing, exit_code, gather, ordered
from dtk_launch.doctor.interfaces import Interface
from dtk_launch.doctor.judging import Examined, cannot_meet, judge, ranks_of
from dtk_launch.doctor.limits import Limits
from dtk_launch.doctor.network import Network
from dtk_launch.doctor.node import NodeFacts, lines, read, read_unseen, unseen
from dtk_launch.doctor.nvidia_smi import Gpu, Gpus
from dtk_launch.doctor.versions import Versions
from hypothesis import given
from hypothesis import strategies as st

GIB = 1 << 30
ETH = Interface("eth0", True, False, ("10.0.0.1",), 1500, 25000)
FACTS = NodeFacts(
    "n1",
    Versions("3.11.7", "/env/bin/python", "0.1.0", "2.14.1", "13.0", "2.30.7"),
    Gpus(why="no NVIDIA driver and no nvidia-smi"),
    Network("n1", ("10.0.0.1",), 0.001, (Interface("lo", True, True, ("127.0.0.1",)), ETH)),
    Filesystem("/lustre/runs", "lustre", False, free=1 << 40, total=2 << 40, sync_seconds=0.002),
    Limits((65536, 65536), (-1, -1), (-1, -1), (64 * GIB, 64 * GIB), 128 * GIB, None, None, 16, "seen", ""),
)


def node(number, **changes):
    name = f"n{number}"
    eth = replace(ETH, addresses=(f"10.0.0.{number}",))
    net = replace(FACTS.network, hostname=name, addresses=eth.addresses, interfaces=(FACTS.network.interfaces[0], eth))
    meet = {"hosting": Hosting(24711, "", ("n2", "n3"))} if number == 1 else {"contact": Contact("", 0.0002, 0.0)}
    return replace(FACTS, node=name, network=net, **(meet | changes))


def examined(*facts, nodes=None, **about):
    names = nodes or tuple(one.node for one in facts)
    about = {"unseen": dict.fromkeys(names, ())} | about
    return Examined(names, {one.node: one for one in facts}, "/lustre/runs", 1, None, **about)


def result(ranks):
    return {
        "stage": "result", "rank": 0, "host": "n1", "backend": "gloo", "right": True, "ranks": ranks, "latency": 6e-5,
        "size": 16 << 20, "seconds": 0.0125,
    }  # fmt: skip


def text(seen, strict=False):
    found = judge(seen)
    shown = [line for _, line in report.lines(found, len(seen.nodes) > 1)]
    return "\n".join([report.heading(seen), *shown, report.verdict(found, strict), ""])


def test_a_good_machine(golden):
    golden("doctor/one.txt", text(replace(examined(FACTS), unseen={}, said=Said((result(2),)))))


def test_nodes_with_seeded_faults(golden):
    """A name that leads to the loopback, another torch, a folder of its own, a clock and a node that does not come."""
    two = node(2)
    two = replace(
        two, versions=replace(two.versions, torch="2.13.0"), contact=Contact("", 0.0002, -3.0),
        network=replace(two.network, addresses=("127.0.1.1",), told_gloo="eth0"),
    )  # fmt: skip
    three = node(3, contact=Contact("Connection refused"))
    seen = examined(
        node(1), two, three, nodes=("n1", "n2", "n3", "n4"), unseen={"n1": (), "n2": ("n1", "n3"), "n3": ()},
        why_not="no answer from n4", srun_words="srun: error: Unable to create step",
    )  # fmt: skip
    golden("doctor/faults.txt", text(seen))
    assert exit_code(judge(seen), False) == 1


def test_many_good_nodes_are_a_line_for_each_check():
    seen = examined(*(node(number) for number in range(1, 101)), said=Said((result(100),)))
    shown = text(seen).splitlines()
    assert len(shown) == 12
    assert "(99 other nodes are ok, too)" in next(line for line in shown if " network " in line)
    assert max(map(len, shown)) < 250


def test_what_stands_in_the_way_of_an_all_reduce():
    assert cannot_meet(examined(node(1), node(2))) == ""
    assert cannot_meet(examined(node(1), nodes=("n1", "n2"))) == "no answer from n2"
    lost = examined(node(1), node(2, contact=Contact("timed out")))
    assert cannot_meet(lost) == "n1:24711 is not reached by n2 (timed out)"
    taken = examined(node(1, hosting=Hosting(24711, "Address already in use")), node(2))
    assert "cannot be had" in cannot_meet(taken)
    assert cannot_meet(examined(node(1), node(2, contact=Contact(ahead=9.0)))) == ""


def test_torch_as_the_ranks_told_of_it():
    gpus = Gpus((Gpu("0", "H100", "81559", "4"),), "", 1, "seen", "550.1", "12.4")
    told = {"cuda": "13.0", "nccl": "2.30.7", "cuda_available": False, "capabilities": []}
    seen = examined(
        replace(FACTS, gpus=gpus), said=Said((result(2), {"stage": "torch", "rank": 0, "host": "n1", "torch": told}))
    )
    assert "the driver can CUDA 12.4, torch 2.14.1 is built for 13.0" in text(seen)
    hidden = replace(gpus, visible=0, why="CUDA_VISIBLE_DEVICES= of 1 GPUs")
    assert "is built for" not in text(replace(seen, facts={"n1": replace(FACTS, gpus=hidden)}))


def test_ranks_of_the_all_reduce():
    eight = replace(FACTS, gpus=Gpus((), "", 8))
    assert ranks_of({"n1": FACTS}, None) == 2
    assert ranks_of({"n1": FACTS, "n2": FACTS}, None) == 1
    assert ranks_of({"n1": eight, "n2": replace(eight, gpus=Gpus((), "", 4))}, None) == 4
    assert ranks_of({"n1": eight}, 3) == 3
    assert ranks_of({}, None) == 1


def test_findings_and_exit_codes():
    warning = Finding("limits", "warning", "few", "why", "fix")
    problem = Finding("gpus", "problem", "dead", "why", "fix")
    assert [exit_code([warning], strict) for strict in (False, True)] == [0, 1]
    assert exit_code([warning, problem], False) == 1
    assert exit_code([], True) == 0
    assert ordered([warning, problem]) == [problem, warning]
    assert report.verdict([warning], True) == "nothing found that breaks a run, but 1 warning (--strict)"
    assert differing([("a", "1"), ("b", "1")]) == ""
    with pytest.raises(ValueError, match="has a why and a fix"):
        Finding("limits", "problem", "few")
    with pytest.raises(ValueError, match="no finding"):
        Finding("weather", "ok", "fine")


def test_a_finding_of_several_nodes_is_there_once():
    few, slow = Finding("limits", "warning", "few", "why", "fix"), Finding("network", "note", "slow")
    found = gather([("n1", [few, slow]), ("n2", [few]), ("n3", [few, slow])])
    assert [(one.what, one.node) for one in found] == [("slow", "n1, n3"), ("few", "")]


def test_json_is_whole():
    seen = examined(node(1), node(2), said=Said((result(2),)))
    values = json.loads(report.as_json(seen, judge(seen), False))
    assert (values["exit_code"], values["nodes"], values["format"]) == (0, ["n1", "n2"], 1)
    assert values["facts"]["n2"]["network"]["interfaces"][1]["name"] == "eth0"
    assert values["all_reduce"][0]["right"] is True
    assert {finding["check"] for finding in values["findings"]} == set(report.CHECKS)


@given(st.randoms(use_true_random=False), st.text(max_size=3000), st.booleans())
def test_facts_come_through_lines_in_any_order(shuffler: random.Random, words, torn):
    asked = Torch(words, "13.0", "2.30.7", True, 1, ("9.0",), ("sm_90",), ("gloo",))
    gpus = Gpus((Gpu("0", "H100", "1", "2"),), links=(("GPU0", "GPU1", "NV18"),), processes=(4711,))
    facts = [node(1, gpus=gpus), node(2, versions=replace(FACTS.versions, asked=asked))]
    said = [line for one in facts for line in lines(one)]
    assert all(len(line) < 1000 for line in said)
    if torn:
        said.remove(next(line for line in said if " n2 " in line))
    shuffler.shuffle(said)
    found = read("\n".join(["srun: noise", *said, "DTK-NODE half"]))
    assert found == {one.node: one for one in (facts[:1] if torn else facts)}


def test_marks_that_a_node_sees(tmp_path):
    for name in ("n1", "n3"):
        (tmp_path / f"{name}.seen").write_text("")
    assert unseen(tmp_path, ("n1", "n2", "n3")) == ("n2",)
    assert unseen(tmp_path / "absent", ("n1",)) == ("n1",)
    assert read_unseen('DTK-NODE-SEES n2 ["n1"]\nnoise\nDTK-NODE-SEES n1 []\n') == {"n2": ("n1",), "n1": ()}


@pytest.mark.parametrize(
    ("environ", "nodes"),
    [
        ({}, ()),
        ({"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n[1-3]"}, ("n1", "n2", "n3")),
        ({"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n[1-3]", "SLURM_STEP_NODELIST": "n1"}, ("n1", "n2", "n3")),
        ({"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n[1-3]", "SLURM_STEP_NODELIST": "n[1-2]"}, ()),
        ({"SLURM_JOB_ID": "7"}, ()),
    ],
)
def test_the_nodes_of_an_allocation(environ, nodes):
    assert over_nodes.nodes_of(environ) == nodes


@pytest.mark.parametrize(
    ("listed", "more", "host", "asked"),
    [
        ("n1", {}, "login", ("n1",)),
        ("n1", {}, "n1.cluster.example", ()),
        ("n1", {"SLURMD_NODENAME": "n1"}, "a-container", ()),
        ("n1", {"SLURMD_NODENAME": "n2"}, "n2", ("n1",)),
        ("n[1-2]", {"SLURMD_NODENAME": "n1"}, "n1", ("n1", "n2")),
    ],
)
def test_one_node_is_asked_by_srun_unless_it_is_this_one(listed, more, host, asked):
    environ = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": listed, **more}
    assert over_nodes.others_of(environ, host) == asked
    assert over_nodes.others_of({}, host) == ()


def test_one_node_that_is_not_this_host():
    """Its port for meeting others is of no interest, whether it answers and has this host's folder is."""
    hosting = Hosting(24711, "Address already in use", ())
    seen = replace(examined(node(1, hosting=hosting)), unseen={"n1": ("login",)})
    assert cannot_meet(seen) == ""
    found = [finding for finding in judge(seen) if finding.level != "ok"]
    assert [(finding.check, finding.level) for finding in found] == [("filesystem", "warning")]
    assert found[0].what == "/lustre/runs is not the same on n1 and on login"
    (lost,) = [
        one for one in judge(examined(nodes=("n1",), srun_words="srun: error: Unable to create step")) if one.fix
    ]
    assert (lost.level, lost.what) == ("problem", "no answer from n1: srun: error: Unable to create step")


def test_srun_gets_what_it_was_given():
    words = over_nodes.srun_words({"SLURM_CPUS_PER_TASK": "8"}, 3)
    assert {"--overlap", "--nodes=3", "--ntasks=3", "--ntasks-per-node=1", "--cpus-per-task=8"} <= set(words)
    assert not [word for word in over_nodes.srun_words({}, 3) if word.startswith("--cpus")]
    kept = over_nodes.for_srun(
        {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "6", "SLURM_STEP_ID": "0", "SQUEUE_FORMAT": "x", "A": "b"}
    )
    assert kept == {"SLURM_JOB_ID": "7", "A": "b", "SLURM_TIME_FORMAT": "standard"}
