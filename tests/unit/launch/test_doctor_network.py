"""Names, interfaces and ports: which gloo and NCCL will take, of made-up hosts and of this one."""

import socket
from dataclasses import replace

import pytest
from dtk_launch.doctor import interfaces, network, ports
from dtk_launch.doctor.interfaces import Interface, nccl_takes
from dtk_launch.doctor.network import Network, compare, gloo_takes, judge

LO = Interface("lo", True, True, ("127.0.0.1", "::1"), 65536)
ETH = Interface("eth0", True, False, ("10.1.2.3", "fd00::3"), 1500, 25000)
IB = Interface("ib0", True, False, ("10.9.2.3",), 2044)
DOCKER = Interface("docker0", True, False, ("172.17.0.1",))
GOOD = Network("n1", ("10.1.2.3",), 0.001, (LO, ETH, DOCKER))


def levels(facts, nodes=2, gpus=0):
    return {finding.what: finding.level for finding in judge(facts, nodes, gpus)}


def graves(facts, nodes=2, gpus=0):
    return [what for what, level in levels(facts, nodes, gpus).items() if level == "problem"]


def test_a_good_host_says_who_takes_what():
    assert levels(GOOD) == {"gloo takes eth0 (10.1.2.3, by the name n1), nccl would take eth0": "ok"}
    assert levels(GOOD, 1).values()


@pytest.mark.parametrize(
    ("names", "takes"),
    [
        ("", ("ib0",)),
        ("eth", ("eth0", "eth1")),
        ("=eth0", ("eth0",)),
        ("=eth", ()),
        ("^docker,lo", ("eth0", "eth1", "ib0")),
        ("^=eth0,ib0", ("lo", "docker0", "eth1")),
        ("wlan", ()),
    ],
)
def test_the_choice_of_nccl(names, takes):
    there = (LO, DOCKER, ETH, replace(ETH, name="eth1"), IB, replace(ETH, name="eth9", up=False))
    assert nccl_takes(there, names) == takes


def test_nccl_without_infiniband_and_with_nothing_better():
    assert nccl_takes((LO, DOCKER, ETH)) == ("eth0",)
    assert nccl_takes((LO, DOCKER)) == ("docker0",)
    assert nccl_takes((LO, replace(ETH, addresses=()))) == ("lo",)
    assert nccl_takes((IB, ETH), "", "AF_INET6") == ("eth0",)


@pytest.mark.parametrize("address", ["127.0.1.1", "127.0.0.1"])
def test_a_name_that_leads_to_the_loopback_breaks_gloo_on_several_nodes_alone(address):
    debian = replace(GOOD, addresses=(address,))
    assert graves(debian) != []
    told = levels(replace(debian, told_gloo="eth0"))
    assert told == {f"the name n1 leads to {address} here; dtk launch has gloo take eth0": "warning"}
    assert list(levels(debian, nodes=1).values()) == ["ok"]
    assert gloo_takes(debian, 1)[0] == "lo"


def test_a_name_of_another_host_and_one_that_nobody_knows():
    assert any("no address of this host" in what for what in graves(replace(GOOD, addresses=("10.1.2.99",))))
    assert any("the name n1 is not known here" in what for what in graves(replace(GOOD, addresses=())))
    assert levels(replace(GOOD, unknown=("n7",)))["not known here: n7"] == "warning"
    assert any("took 6.0 s" in what for what in levels(replace(GOOD, seconds=6.0)))


def test_one_node_whose_own_name_leads_nowhere():
    """dtk launch gives torchrun the loopback; on several nodes it is another finding."""
    lost = replace(GOOD, addresses=(), unnamed="the name n1 of this host is not known here")
    (finding,) = [one for one in judge(lost, 1, 0) if one.level != "ok"]
    assert (finding.level, finding.what) == ("warning", f"{lost.unnamed}; dtk launch gives torchrun 127.0.0.1")
    assert "127.0.1.1 n1" in finding.fix
    assert "/etc/hosts" in finding.fix
    assert lost.unnamed not in " ".join(levels(lost, 2))


@pytest.mark.parametrize("nodes", [1, 2])
def test_a_loopback_that_is_down(nodes):
    down = replace(GOOD, interfaces=(replace(LO, up=False, addresses=()), ETH), unnamed="the name n1 leads nowhere")
    (finding,) = judge(down, nodes, 0)
    assert (finding.level, finding.what) == ("problem", "the loopback interface lo is down")
    assert finding.fix.startswith("ip link set lo up")


def test_only_a_loopback_and_a_bridge_for_containers():
    alone = replace(GOOD, addresses=("172.17.0.1",), interfaces=(LO, DOCKER))
    assert graves(alone) == ["no interface leads to other hosts (up: lo, docker0)"]
    assert graves(alone, nodes=1) == []
    bridge = replace(GOOD, addresses=("172.17.0.1",))
    assert graves(bridge) == ["gloo will take docker0"]


def test_variables_that_name_what_is_not_there():
    def with_(name, value):
        return replace(GOOD, variables=((name, value),))

    assert graves(with_("GLOO_SOCKET_IFNAME", "ib9")) == [
        "GLOO_SOCKET_IFNAME=ib9, and there is no ib9 here (there are lo, eth0, docker0)"
    ]
    assert graves(with_("GLOO_SOCKET_IFNAME", "lo")) == ["gloo will take lo"]
    assert graves(with_("GLOO_SOCKET_IFNAME", "lo"), nodes=1) == []
    no_address = replace(
        with_("GLOO_SOCKET_IFNAME", "eth1"), interfaces=(LO, ETH, replace(ETH, name="eth1", addresses=()))
    )
    assert "GLOO_SOCKET_IFNAME=eth1, and eth1 has no address" in graves(no_address)
    assert (
        levels(with_("NCCL_SOCKET_IFNAME", "ib"))["NCCL_SOCKET_IFNAME=ib fits none of lo, eth0, docker0"] == "warning"
    )
    assert graves(with_("NCCL_SOCKET_IFNAME", "ib"), gpus=8) != []


def test_infiniband_and_a_slow_link():
    down = replace(GOOD, infiniband=(("mlx5_0:1", "DOWN"), ("mlx5_1:1", "ACTIVE")))
    assert levels(down, gpus=8)["InfiniBand that is not active: mlx5_0:1"] == "note"
    off = replace(GOOD, infiniband=(("mlx5_0:1", "ACTIVE"),), variables=(("NCCL_IB_DISABLE", "1"),))
    assert levels(off, gpus=8) == {"NCCL_IB_DISABLE is set, and there is InfiniBand": "warning"}
    slow = replace(GOOD, interfaces=(LO, replace(ETH, speed=1000)))
    assert levels(slow) == {"gloo will take eth0, of 1000 Mb/s": "warning"}
    assert list(levels(slow, nodes=1).values()) == ["ok"]


def test_nodes_that_differ():
    other = replace(GOOD, interfaces=(LO, replace(ETH, mtu=9000)), variables=(("NCCL_SOCKET_IFNAME", "eth0"),))
    said = [finding.what for finding in compare({"n1": GOOD, "n2": other})]
    assert said == [
        "NCCL_SOCKET_IFNAME differs: none on n1; eth0 on n2",
        "the interfaces that gloo takes differ: MTU 1500 on n1; MTU 9000 on n2",
        "several nodes call themselves n1",
    ]
    assert list(compare({"n1": GOOD, "n2": replace(GOOD, hostname="n2")})) == []


def test_a_port_that_is_taken():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert port in ports.taken_ports(str(port))
    assert port not in ports.taken_ports(str(port))
    (finding,) = ports.judge(str(port), (port,))
    assert (finding.level, finding.what) == ("warning", f"another program has MASTER_PORT={port}")
    assert [finding.level for finding in ports.judge("", (29400,))] == ["note"]
    assert [finding.level for finding in ports.judge("29x", ())] == ["ok"]
    assert ports.taken_ports("29x") == ports.taken_ports("")


def test_a_port_is_looked_at_where_rank_0_would_listen(monkeypatch):
    monkeypatch.setenv("MASTER_PORT", "29501")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    assert network.probe().master_port == "29501"
    for address, port in (("localhost", "29501"), ("192.0.2.1", ""), ("nowhere.invalid", "")):
        monkeypatch.setenv("MASTER_ADDR", address)
        assert network.probe().master_port == port


def test_this_host(tmp_path):
    facts = network.probe()
    (lo,) = [interface for interface in facts.interfaces if interface.name == "lo"]
    assert lo.loopback
    assert lo.addresses[0] == "127.0.0.1"
    assert facts.hostname == socket.gethostname()
    assert interfaces.of_address(facts.interfaces, "127.0.1.1") == "lo"
    assert facts.unnamed == ""
    assert network.probe(("no-such-node.invalid", "localhost"), "localhost").unknown == ("no-such-node.invalid",)
    state = tmp_path / "sys/class/infiniband/mlx5_0/ports/1/state"
    state.parent.mkdir(parents=True)
    state.write_text("4: ACTIVE\n")
    assert network.probe(root=tmp_path).infiniband == (("mlx5_0:1", "ACTIVE"),)
