import pytest
from dtk_launch.allocation import Allocation, expand
from dtk_launch.errors import PlanError

STEP = {
    "SLURM_JOB_ID": "12",
    "SLURM_STEP_NODELIST": "n[1-2]",
    "SLURM_NODEID": "1",
    "SLURMD_NODENAME": "n2",
    "SLURM_STEP_TASKS_PER_NODE": "1(x2)",
}


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("n1", ["n1"]),
        ("n1,n2", ["n1", "n2"]),
        ("n[1-3,7]", ["n1", "n2", "n3", "n7"]),
        ("n[08-10]", ["n08", "n09", "n10"]),
        ("n[9-11]", ["n9", "n10", "n11"]),
        ("gpu[1-2],login,cpu[03]", ["gpu1", "gpu2", "login", "cpu03"]),
        ("r[1-2]n[1-2]", ["r1n1", "r1n2", "r2n1", "r2n2"]),
        ("n[1-2].example", ["n1.example", "n2.example"]),
        ("rack-1-n[5]", ["rack-1-n5"]),
    ],
)
def test_node_lists(text, names):
    assert expand(text) == tuple(names)


@pytest.mark.parametrize("text", ["n[1-", "n]1[", "n[a-b]"])
def test_a_list_that_cannot_be_read_is_refused(text):
    with pytest.raises(PlanError, match="node list"):
        expand(text)


def test_a_step():
    step = Allocation.from_env(STEP | {"SLURM_RESTART_COUNT": "3"})
    assert (step.job_id, step.restart_count, step.head, step.node_rank, step.node_name) == (12, 3, "n1", 1, "n2")
    assert Allocation.from_env(STEP).restart_count == 0


def test_outside_a_step_there_is_none():
    assert Allocation.from_env({}) is None
    batch = {key: value for key, value in STEP.items() if "STEP" not in key}
    assert Allocation.from_env(batch) is None
