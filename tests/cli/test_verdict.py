"""The verdict on runs that really fail: the rank that failed first is named, and how. `dtk bench verdict` does all."""

import json

import pytest
from verdict_parts import runs
from verdict_parts.scenarios import KINDS, cascade, core_dump, one, scenarios

pytestmark = pytest.mark.cli


def judged(scenario):
    try:
        record = runs.measure(scenario)
    except runs.NotHere as error:
        pytest.skip(str(error))
    assert record["dtk"] == record["truth"], record["said"]
    return record


def test_the_others_only_lost_their_connection():
    record = judged(one("exception", 4, 1, "sockets"))
    lines = [line.strip() for line in record["said"].splitlines()]
    verdict = lines[lines.index("dtk: rank 1 failed first: ValueError: a bad batch on rank 1 (exit code 1)") :]
    assert 'raise ValueError(f"a bad batch on rank {RANK}")' in verdict
    assert any("later" in line and "lost the connection" in line for line in verdict)
    assert verdict[-1].endswith("verdict.json")  # the last that is said
    assert record["exit_codes"] == [1]


def test_a_fault_is_named_with_its_line():
    record = judged(one("SIGSEGV", 2, 0))
    assert record["how"] == "killed by SIGSEGV"
    assert "_verdict_rank.py" in record["said"]
    assert "in fail" in record["said"]
    assert record["exit_codes"] == [139]


def test_a_rank_that_closes_its_sockets_before_it_has_said_why():
    assert judged(one("slow teardown", 4, 2, "sockets"))["how"].startswith("ValueError")


def test_the_out_of_memory_killer_is_named():
    record = judged(one("out of memory", 2, 1))
    assert record["how"].startswith("killed by SIGKILL, by the kernel's out-of-memory killer")


@pytest.mark.slow
def test_a_killed_rank_among_real_collectives():
    assert judged(one("SIGKILL", 3, 1, "gloo"))["how"] == "killed by SIGKILL"


@pytest.mark.slow
def test_a_rank_that_still_writes_its_core_failed_when_it_crashed():
    record = judged(core_dump())
    assert record["how"] == "killed by SIGSEGV"


def test_ranks_that_fail_one_after_the_other():
    judged(cascade(KINDS, 4, 20, 0))


@pytest.mark.slow  # network namespaces as nodes: test_nodes.py
def test_two_nodes_agree_and_both_end_with_its_code():
    record = judged(one("os._exit", 2, 3, "sockets", nodes=2))
    assert record["exit_codes"] == [4, 4]


def test_a_failure_in_an_earlier_attempt_is_kept(start):
    source = "import os, sys\nif os.environ['TORCHELASTIC_RESTART_COUNT'] == '0': raise OSError('no disk')\nsys.exit(5)"
    run = start(source, "--nproc", "1", "--max-restarts", "1")
    assert run.wait()[0] == 5
    verdict = json.loads((run.folder / "runs/script/verdict.json").read_text())
    (earlier,) = verdict["earlier_attempts"]
    assert (earlier["culprit"]["type"], verdict["culprit"]["code"]) == ("OSError", 5)


@pytest.mark.slow
@pytest.mark.parametrize("scenario", list(scenarios(1)), ids=lambda scenario: f"{scenario.group}: {scenario.name}")
def test_every_scenario(scenario):
    judged(scenario)
