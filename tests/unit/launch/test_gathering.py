"""What a node says that waits for the others."""

from types import SimpleNamespace

import pytest
from dtk_launch import nodes
from dtk_launch.gathering import Gathering, words
from dtk_launch.plan import Decision
from dtk_launch.rendezvous import Rendezvous, Topology


def plan_of(run_dir, most=2, fewest=2, source="flag --rdzv"):
    topology = Topology(most, 1, 0, Rendezvous("n1", 29400, "id", True, "n1"), fewest)
    return SimpleNamespace(run_dir=run_dir, topology=topology, decisions=(Decision("rendezvous", "x", source, ""),))


def test_it_is_said_after_ten_seconds_and_then_every_three_minutes(tmp_path, capsys):
    clock = {"now": 100.0}
    gathering = Gathering(plan_of(tmp_path), lambda: clock["now"])
    nodes.publish(tmp_path, "1", "id", state="running")  # of an earlier launch of that name: it writes no more
    said = []
    for second in range(400):
        clock["now"] = 100.0 + second
        if second >= 200:
            nodes.publish(tmp_path, "1", "id", state="running")
        gathering.look()
        said += [(second, line) for line in capsys.readouterr().err.splitlines()]
    first = "dtk: node 0 waits for 1 of 2 nodes at n1:29400; "
    first += "the others are started with the same --nodes, --rdzv and --name"
    assert said == [
        (10, first),
        (190, first),
        (370, "dtk: node 0 waits at n1:29400 for its ranks to start; 2 of 2 nodes are there"),
    ]


@pytest.mark.parametrize(
    ("given", "others", "said"),
    [
        ({"most": 4, "fewest": 4}, 1, "waits for 2 of 4 nodes at n1:29400"),
        ({"source": "observed"}, 0, "the others are started by srun"),
        ({"most": 4, "fewest": 1}, 1, "waits at n1:29400 for more nodes, up to 4"),
        ({"most": 4, "fewest": 1}, 3, "for its ranks to start; 4 of 4 nodes are there"),
    ],
)
def test_what_it_waits_for(tmp_path, given, others, said):
    assert said in words(plan_of(tmp_path, **given), others)
