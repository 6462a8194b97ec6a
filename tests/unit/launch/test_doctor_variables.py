"""Variables of a launcher in the shell: stale, a launcher's own, or a job's."""

import socket

import pytest
from dtk_launch.doctor.pet import without_refused
from dtk_launch.doctor.variables import judge, probe

BOTH = {"RANK": "3", "WORLD_SIZE": "8"}
MEETING = {"MASTER_ADDR": "localhost", "MASTER_PORT": "29501"}
JOB = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n[1-2]"}
STEP = JOB | {"SLURM_STEP_NODELIST": "n[1-2]", "SLURM_STEP_ID": "0", "SLURM_PROCID": "3"}


@pytest.fixture(autouse=True)
def names(monkeypatch):
    """localhost, n1, n2 and far are known; no name server is asked."""
    known = {"localhost": "127.0.0.1", "n1": "192.0.2.1", "n2": "192.0.2.2", "far": "192.0.2.9", "n1.hpc": "192.0.2.77"}

    def look_up(name, port, **_):
        if name not in known:
            raise socket.gaierror("not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (known[name], 0))]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)


def found(environ, of_nodes=()):
    return list(judge(probe(environ), of_nodes))


def only(environ, of_nodes=()):
    (finding,) = found(environ, of_nodes)
    return finding


def test_a_shell_without_any():
    assert (only({}).level, only({"HOME": "/"}).what) == ("ok", "no RANK, WORLD_SIZE or MASTER_ADDR is set")


@pytest.mark.parametrize(
    ("environ", "what", "why"),
    [
        (BOTH | MEETING, "RANK=3 and WORLD_SIZE=8 are in the shell", "rank 3 of 8, and waits for the others"),
        (BOTH, "RANK=3 and WORLD_SIZE=8 are in the shell", "and fails: no MASTER_ADDR and no MASTER_PORT"),
        (BOTH | MEETING | {"TORCHELASTIC_USE_AGENT_STORE": "True"}, "RANK=3", "of a torchrun, and waits for that"),
        ({"RANK": "8", "WORLD_SIZE": "8"}, "RANK=8", "cannot join: the ranks of 8 are 0 to 7"),
        ({"RANK": "0"}, "RANK=0 is in the shell", "WORLD_SIZE is expected"),
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE=2 is in the shell", "RANK is expected"),
        ({"LOCAL_RANK": "1"}, "LOCAL_RANK=1 is in the shell", "with Accelerate or Trainer"),
        ({"RANK": ""}, "RANK='' is no number", "python train.py fails"),
        ({"MASTER_ADDR": "gone"}, "MASTER_ADDR=gone is not known on this machine", "until a timeout"),
        ({"MASTER_ADDR": "far"}, "MASTER_ADDR=far (192.0.2.9) is another machine", "looks for itself on that one"),
        ({"MASTER_PORT": "29x"}, "MASTER_PORT='29x' is no port", "fail at once"),
        (JOB | {"RANK": "0"}, "RANK=0 is set for the whole job", "takes itself for rank 0"),
        (JOB | {"MASTER_ADDR": "far"}, "MASTER_ADDR=far (192.0.2.9) is no node of this job", "until a timeout"),
        (STEP | {"RANK": "0"}, "RANK=0 is set for the whole job", "takes itself for rank 0"),
    ],
)
def test_what_was_left_is_a_warning_that_says_what_dtk_does(environ, what, why):
    finding = only(environ)
    assert (finding.check, finding.level) == ("variables", "warning")
    assert finding.what.startswith(what)
    assert why in finding.why
    assert finding.why.endswith("dtk launch and torchrun set their own")
    assert finding.fix.startswith("unset ")


@pytest.mark.parametrize(
    "environ",
    [
        MEETING,
        JOB | {"WORLD_SIZE": "8", "MASTER_ADDR": "n1", "MASTER_PORT": "29501"},
        JOB | {"MASTER_ADDR": "n1.hpc"},
        JOB | {"MASTER_ADDR": "far", "SLURM_JOB_NODELIST": "n1,unknown"},
        STEP | BOTH | {"MASTER_ADDR": "n1"},
        BOTH | {"MASTER_ADDR": "far", "KUBERNETES_SERVICE_HOST": "10.0.0.1"},
        BOTH | {"LOCAL_RANK": "1", "OMPI_COMM_WORLD_RANK": "3"},
    ],
)
def test_what_a_launcher_or_a_job_has_set_is_fine(environ):
    assert only(environ).level == "ok"


def test_addresses_that_the_nodes_themselves_are_seen_to_have():
    assert only(JOB | {"MASTER_ADDR": "far"}, {"192.0.2.9"}).level == "ok"


def test_ranks_on_several_machines_by_hand():
    """Rank 3 looks for the first machine there."""
    (finding,) = found(BOTH | {"MASTER_ADDR": "far", "MASTER_PORT": "29501"})
    assert finding.what.startswith("RANK=3 and WORLD_SIZE=8")
    assert finding.fix == "unset RANK WORLD_SIZE MASTER_ADDR MASTER_PORT"


def test_the_shell_of_salloc_is_no_rank():
    assert only(STEP | {"SLURM_STEP_ID": "4294967290", "RANK": "3"}).what == "RANK=3 is set for the whole job"


def test_a_world_of_one_and_what_torchrun_obeys_are_notes():
    assert [finding.level for finding in found(MEETING | {"RANK": "0", "WORLD_SIZE": "1"})] == ["note"]
    ok, note = found({"PET_LOG_DIR": "/logs", "PET_NNODES": "1"})
    assert (ok.level, note.level, note.what) == ("ok", "note", "PET_LOG_DIR=/logs PET_NNODES=1")


@pytest.mark.parametrize(
    ("name", "value", "nodes", "said"),
    [
        ("PET_NPROC_PER_NODE", "9", 1, "PET_NPROC_PER_NODE=9 contradicts --nproc-per-node 4 of a plain dtk launch"),
        ("PET_NNODES", "2", 1, "PET_NNODES=2 contradicts --nnodes 1 of a plain dtk launch"),
        ("PET_RDZV_ENDPOINT", "n1:1", 2, "PET_RDZV_ENDPOINT=n1:1 is set, and dtk launch has one for each job or node"),
        ("PET_NODE_RANK", "0", 2, "PET_NODE_RANK=0 is set, and dtk launch has one for each job or node"),
        ("PET_NO_PYTHON", "1", 1, "PET_NO_PYTHON=1 is set, and torchrun would obey it, but the ranks run Python"),
        ("PET_TEE", "9", 1, "PET_TEE='9' is set, and torchrun would obey it, but cannot read it"),
    ],
)
def test_a_default_of_torchrun_that_dtk_launch_refuses(name, value, nodes, said):
    (finding,) = judge(probe({name: value}), (), nodes, 4)
    assert (finding.level, finding.what) == ("problem", said)
    assert finding.fix.startswith(f"unset {name}")
    kept = {"PET_MAX_RESTARTS": "0", "PET_LOG_DIR": "/logs", "X": "1"}
    assert without_refused(kept | {name: value}, nodes, 4) == kept
