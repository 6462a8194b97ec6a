"""Nodes whose names lead nowhere: their addresses, and the interface that gloo has to be told of."""

import socket
import threading
from dataclasses import replace

import pytest
from dtk_launch import reach
from dtk_launch.errors import PlanError
from dtk_launch.torchrun import flags

UNKNOWN = "no-such-node.invalid"


@pytest.fixture
def scontrol(tmp_path, monkeypatch):
    """A controller that gives this as the address of every node."""

    def answers(address):
        program = tmp_path / "scontrol"
        program.write_text(f'#!/bin/sh\necho "NodeName=$4 Arch=x86_64 NodeAddr={address} NodeHostName=$4"\n')
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=":")

    return answers


def test_names_that_are_known_are_left_alone(step):
    known = replace(step, nodes=("localhost", "n2"), node_name="localhost")
    assert reach.addressed(known) == known


def test_a_name_that_is_not_known_is_replaced_by_the_address_that_slurm_has(step, scontrol, plan, facts):
    scontrol("127.0.0.9")
    found = reach.addressed(replace(step, nodes=(UNKNOWN, "localhost"), node_name="localhost"))
    assert (found.head, found.head_address, found.own_address) == (UNKNOWN, "127.0.0.9", "")
    made = plan(facts(allocation=found))
    assert (made.topology.rendezvous.host, made.topology.rendezvous.node_name) == ("127.0.0.9", "localhost")
    assert [d.value for d in made.decisions if d.key == f"address of {UNKNOWN}"] == ["127.0.0.9"]


@pytest.mark.parametrize("address", [UNKNOWN, ""])
def test_a_name_that_nobody_knows_is_refused_at_once(step, scontrol, address):
    scontrol(address)
    with pytest.raises(PlanError, match=f"the node name {UNKNOWN} is not known on n2, and scontrol"):
        reach.addressed(replace(step, nodes=(UNKNOWN, "n2")))


def test_without_scontrol_it_is_refused_too(step, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PlanError, match="ask your admin"):
        reach.addressed(replace(step, nodes=(UNKNOWN, UNKNOWN), node_name=UNKNOWN))


@pytest.mark.parametrize(
    ("own", "ways", "told"),
    [
        (["10.0.0.5"], {}, ""),  # the usual case: the name leads to the address
        (["127.0.1.1"], {"n1": "10.0.0.5"}, "eth-10.0.0.5"),  # Debian's /etc/hosts
        ([], {"n1": "10.0.0.5"}, "eth-10.0.0.5"),
        ([], {"n1": "127.0.1.1", reach._ELSEWHERE: "10.0.0.5"}, "eth-10.0.0.5"),  # the head itself
        ([], {"127.0.0.1": "127.0.0.1", reach._ELSEWHERE: "10.0.0.5"}, ""),  # all nodes are this host
        ([], {}, ""),
    ],
)
def test_gloo_is_told_of_an_interface_where_the_name_of_the_host_leads_to_none(monkeypatch, own, ways, told):
    monkeypatch.setattr(reach, "_addresses", lambda _: own)
    monkeypatch.setattr(reach, "_can_bind", lambda _: True)
    monkeypatch.setattr(reach, "_way_to", lambda host: ways.get(host, ""))
    monkeypatch.setattr(reach, "_interface_of", lambda address: f"eth-{address}")
    head = "127.0.0.1" if "127.0.0.1" in ways else "n1"
    assert reach.gloo_interface(head) == told


def test_the_interface_of_an_address_of_this_machine():
    assert reach._interface_of("127.0.0.1") == "lo"
    assert reach._interface_of("192.0.2.1") == ""


def test_the_ranks_of_several_nodes_get_it_and_a_user_who_has_set_it_keeps_his(plan, facts, step):
    on = facts(allocation=step, gloo_interface="eth9")
    made = plan(on)
    assert dict(made.env)["GLOO_SOCKET_IFNAME"] == "eth9"
    assert [d.why for d in made.decisions if d.key == "GLOO_SOCKET_IFNAME"] == [
        "the name of this host leads to no address that others reach"
    ]
    assert dict(plan(on, env=("GLOO_SOCKET_IFNAME=ib0",)).env)["GLOO_SOCKET_IFNAME"] == "ib0"
    kept = plan(replace(on, environ=(("GLOO_SOCKET_IFNAME", "ib0"),)))
    assert "GLOO_SOCKET_IFNAME" not in dict(kept.env)  # it is in the environment already
    assert "GLOO_SOCKET_IFNAME" not in dict(plan(facts(gloo_interface="eth9")).env)  # one node


def test_the_name_of_this_host_as_torchrun_looks_it_up(monkeypatch):
    assert reach.unnamed() == ""
    monkeypatch.setattr(socket, "getfqdn", lambda: UNKNOWN)
    assert reach.unnamed() == f"the name {UNKNOWN} of this host is not known here"
    monkeypatch.setattr(socket, "getfqdn", lambda: "192.0.2.1")
    assert reach.unnamed() == "the name 192.0.2.1 of this host leads to 192.0.2.1, no address of it"


def test_a_look_up_that_does_not_end_is_not_waited_for(monkeypatch):
    asked = threading.Event()
    monkeypatch.setattr(socket, "getfqdn", lambda: str(asked.wait(60)))
    assert "was not over after 0.01 seconds" in reach.unnamed(0.01)
    asked.set()


def test_one_node_without_a_name_meets_at_the_loopback(plan, facts, step):
    why = "the name n1 of this host is not known here"
    made = plan(facts(unnamed=why))
    assert ("--local-addr", "127.0.0.1") in flags(made)
    (row,) = [d for d in made.decisions if d.key == "local_addr"]
    assert (row.value, row.source) == ("127.0.0.1", "observed")
    assert row.why == f"{why}, and torchrun has its ranks look for it by that"
    assert "--local-addr" not in dict(flags(plan()))
    assert dict(flags(plan(facts(allocation=step, unnamed=why))))["--local-addr"] == "n2"


def test_the_loopback_of_this_host_is_up():
    assert not reach.loopback_is_down()
