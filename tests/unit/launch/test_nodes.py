"""What a node learns of the failures of the others from the run directory."""

import time
from types import SimpleNamespace

import pytest
from dtk_launch import nodes
from dtk_launch.diagnose.evidence import RankEnd
from dtk_launch.outcome import failed_elsewhere


@pytest.fixture
def others(tmp_path, monkeypatch):
    """The other nodes as node 0 of launch `id` sees them, each look a real one."""
    monkeypatch.setattr(nodes, "_LOOK_EVERY", 0.0)

    def make(elastic=False):
        topology = SimpleNamespace(node="0", elastic=elastic, rendezvous=SimpleNamespace(id="id"))
        return nodes.OtherNodes(SimpleNamespace(run_dir=tmp_path, topology=topology))

    return make


def test_another_nodes_failure_is_seen(others, tmp_path):
    seen = others()
    nodes.publish(tmp_path, "1", "id", state="running")
    assert not seen.failed()
    nodes.publish_failure(tmp_path, "1", "id")
    assert seen.failed()
    assert sorted(nodes.entries(tmp_path)) == ["1"]


def test_neither_its_own_nor_another_launchs_nor_an_earlier_one_counts(others, tmp_path):
    nodes.publish_failure(tmp_path, "2", "id")
    seen = others()
    nodes.publish_failure(tmp_path, "0", "id")
    nodes.publish_failure(tmp_path, "1", "other")
    assert not seen.failed()


def test_an_elastic_launch_goes_on(others, tmp_path):
    seen = others(elastic=True)
    nodes.publish_failure(tmp_path, "1", "id")
    assert not seen.failed()


@pytest.mark.parametrize(("ends_after", "expected"), [(6, {"1"}), (None, set())])
def test_the_verdict_waits_for_a_node_that_still_writes_and_not_for_one_that_has_gone(
    tmp_path, monkeypatch, ends_after, expected
):
    """A clock that steps on with each look; the other node writes every two seconds, until it ends or falls silent."""
    clock = {"now": 0.0}

    def sleep(seconds):
        clock["now"] += seconds

    fake = SimpleNamespace(monotonic=lambda: clock["now"], sleep=sleep, time_ns=time.time_ns)
    monkeypatch.setattr(nodes, "time", fake)
    nodes.publish(tmp_path, "1", "a", state="running")

    def look():
        if ends_after is not None and clock["now"] > ends_after:
            nodes.publish(tmp_path, "1", "a", state="ended", ends=[])
        elif ends_after is not None and round(clock["now"] * 10) % 20 == 0:
            nodes.publish(tmp_path, "1", "a", state="running")
        return nodes.ends_of_others(tmp_path, "a", "0")[1]

    nodes.wait_for_others(2, look, lambda: False, lambda: False, nodes.Liveliness(tmp_path, "a", "0"))
    assert look() == expected
    assert clock["now"] == pytest.approx(3 if ends_after is None else ends_after, abs=0.5)


@pytest.mark.parametrize(
    ("end", "told", "elsewhere"),
    [
        ({"code": 143, "signal": "SIGTERM"}, {"0", "1"}, False),  # scancel: all nodes are told, and one rank is first
        ({"code": 1, "type": "ConnectionResetError"}, {"0", "1"}, False),
        ({"code": 143, "signal": "SIGTERM"}, {"0"}, True),  # somebody has ended that rank alone
        ({"code": 1, "type": "ValueError"}, {"0", "1"}, True),  # a failure at the same moment
        ({"code": 137, "signal": "SIGKILL"}, {"0", "1"}, True),
    ],
)
def test_a_rank_that_obeyed_first_is_not_at_fault(tmp_path, end, told, elsewhere):
    for node in ("0", "1"):
        nodes.publish(tmp_path, node, "id", state="ended", ends=[], signalled=15 if node in told else None)
    culprit = RankEnd(1, "1", "h", 1, 0, **end)
    assert failed_elsewhere(culprit, "0", nodes.signalled_nodes(tmp_path, "id")) == elsewhere
    assert not failed_elsewhere(culprit, "1", told)
