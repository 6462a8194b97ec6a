"""What could never start on a cluster, by sinfo's numbers, and what SLURM's own refusals mean."""

from pathlib import Path

import pytest
from dtk_launch.schedulers.base import JobPlan
from dtk_launch.schedulers.site import count, megabytes, minutes, parse_sinfo, refusals, waits
from dtk_launch.schedulers.slurm import Slurm
from dtk_launch.schedulers.slurm_words import explained, meaning
from hypothesis import given
from hypothesis import strategies as st

SITE = """a line of the site's own
main*|up|6|32|128000|1-00:00:00|(null)|(null)|idle
main*|up|2|64+|256000+|1-00:00:00|(null)|big,fast|mix
main*|up|1|32|128000|1-00:00:00|(null)|(null)|down*
gpu|up|3|64|512000|infinite|gpu:a100:8(S:0-1),nvme:1|a100,ib|alloc
gpu|up|1|64|512000|infinite|gpu:h100:4|h100,ib|drain
old|inact|9|8|16000|30:00|(null)|(null)|idle
"""


def job(nodes=1, cores=0, **asked):
    pairs = tuple((key.replace("_", "-"), value) for key, value in asked.items())
    return JobPlan(("dtk",), nodes, "n", Path("/r"), Path("/r"), Path("/w"), pairs, cores)


@pytest.mark.parametrize(
    "fits",
    [
        job(),
        job(9),
        job(2, 64),
        job(8, 32, mem="125G", time="23:59:59"),
        job(2, 64, constraint="big&fast"),
        job(3, partition="gpu", gpus_per_node="a100:8", mem="0"),
        job(4, partition="gpu", gpus_per_node="4", constraint="a100|h100", time="30-0"),
        job(9, partition="gpu,main"),
        job(1, partition="gpu", gpus_per_node="a100:4,h100:0"),
    ],
)
def test_what_could_start(fits):
    assert refusals(fits, parse_sinfo(SITE)) == []


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (job(10), ["--nodes=10, but partition main has 9 nodes"]),
        (job(3, 64), ["--cpus-per-task=64, but 2 of the 9 nodes of partition main have that (most: 64 cores)"]),
        (job(1, 99), ["--cpus-per-task=99, but 0 of the 9 nodes of partition main have that (most: 64 cores)"]),
        (job(mem="300G"), ["--mem=300G, but 0 of the 9 nodes of partition main have that (most: 256000 MB)"]),
        (job(time="1-00:00:01"), ["--time=1-00:00:01 is longer than partition main allows: 1440 minutes"]),
        (
            job(gpus_per_node="1"),
            ["--gpus-per-node=1, but 0 of the 9 nodes of partition main have that (most: 0 GPUs)"],
        ),
        (
            job(4, partition="gpu", gpus_per_node="a100:8"),
            ["--gpus-per-node=a100:8, but 3 of the 4 nodes of partition gpu have that (most: 8 GPUs)"],
        ),
        (
            job(partition="gpu", constraint="v100"),
            ["--constraint=v100, but 0 of the 4 nodes of partition gpu have that (most: a100, h100, ib)"],
        ),
        (
            job(partition="gpu", gpus_per_node="8", constraint="h100"),
            ["--gpus-per-node=8 and --constraint=h100: 0 of the 4 nodes of partition gpu have all of it, needed 1"],
        ),
        (
            job(partition="gpus"),
            ["--partition=gpus: unknown partition 'gpus'; known: gpu, main, old; did you mean gpu?"],
        ),
        (job(partition="old"), ["--partition=old is not up: it takes no jobs now (sinfo -p old)"]),
    ],
)
def test_what_could_never_start(asked, words):
    assert refusals(asked, parse_sinfo(SITE)) == words


def test_all_partitions_that_are_named_have_to_fail():
    assert len(refusals(job(99, partition="main,gpu"), parse_sinfo(SITE))) == 2
    assert refusals(job(99), parse_sinfo(SITE.replace("*|", "|", 3))) == []  # a site's filter may choose one
    assert refusals(job(10**6, 10**6), parse_sinfo("slurm_load_partitions: nobody is there\n")) == []


def test_numbers_that_slurm_shortens():
    groups = parse_sinfo(
        "big*|up|1K|128|2M|infinite|(null)|(null)|idle\nbig*|up|1.5K|1K+|1|infinite|(null)|(null)|mix\n"
    )
    assert [(group.nodes, group.cores, group.memory) for group in groups] == [(1024, 128, 2 << 20), (1536, 1024, 1)]
    assert refusals(job(2560), groups) == []


def test_a_quality_of_service_may_lift_the_limits_of_a_partition():
    assert refusals(job(time="9-0", qos="long"), parse_sinfo(SITE)) == []


@pytest.mark.parametrize(
    ("environ", "asked", "refused"),
    [
        ({}, {}, True),
        ({"SBATCH_PARTITION": "main,old"}, {}, False),
        ({"SBATCH_PARTITION": "main"}, {"partition": "old"}, True),
        ({"SBATCH_TIMELIMIT": "45"}, {"partition": "old", "nodes": 9}, True),
        ({"SBATCH_QOS": "long"}, {"time": "9-0", "nodes": 1, "partition": "main"}, False),
    ],
)
def test_what_sbatch_takes_from_its_own_variables_counts_where_no_option_is_given(environ, asked, refused):
    site = SITE.replace("main*", "main").replace("old|inact", "old*|up")
    plan = job(asked.get("nodes", 1), 16, **{name: value for name, value in asked.items() if name != "nodes"})
    assert bool(Slurm().refusals(Slurm().with_variables(plan, environ), site)) == refused


def test_an_option_wins_over_sbatchs_variable():
    """sbatch itself has it the other way round, for lines of a script."""
    set_by_hand = {
        **dict.fromkeys(("SBATCH_PARTITION", "SBATCH_TIMELIMIT", "SBATCH_MEM_PER_CPU", "SBATCH_SIGNAL"), "x"),
        **dict.fromkeys(("SBATCH_OPEN_MODE", "SBATCH_NO_REQUEUE", "SBATCH_WAIT", "SBATCH_JOB_NAME"), "x"),
    }
    kept = {"SBATCH_ACCOUNT": "mine", "SBATCH_CLUSTERS": "c2", "PATH": "/bin"}
    plan = job(partition="main", time="30", mem="4G", signal="USR1@60")
    assert Slurm().submit_environ(plan, set_by_hand | kept) == kept
    assert "SBATCH_QOS" not in Slurm().submit_environ(job(qos="long"), {"SBATCH_QOS": "short"})


def test_what_waits_for_nodes():
    groups = parse_sinfo(SITE)
    assert (waits(job(8), groups), waits(job(3, partition="gpu"), groups)) == ("", "")
    said = "1 of 9 nodes take no jobs now (down, drained), so the job waits for 1 of them"
    assert waits(job(9), groups) == said


@pytest.mark.parametrize(
    ("text", "length"),
    [("30", 30), ("10:30", 10.5), ("04:00:00", 240), ("1-12", 2160), ("2-00:30:00", 2910), ("infinite", None)],
)
def test_lengths_of_time(text, length):
    assert minutes(text) == length


@pytest.mark.parametrize(
    ("text", "number"),
    [("12", 12), ("64+", 64), ("2-4", 2), ("1K", 1024), ("1.5K", 1536), ("2M+", 2 << 20), ("K", None), ("n1", None)],
)
def test_numbers(text, number):
    assert count(text) == number


@pytest.mark.parametrize(("text", "size"), [("64G", 65536), ("4000", 4000), ("1tb", 1048576), ("0", 0), ("512K", 0.5)])
def test_sizes_of_memory(text, size):
    assert megabytes(text) == size


@given(st.text(max_size=200))
def test_anything_can_be_printed_before_or_instead(text):
    assert isinstance(refusals(job(2), parse_sinfo(text)), list)
    assert isinstance(explained(text), str)


POLICY = "Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)"


@pytest.mark.parametrize(
    ("code", "words", "refusal", "start"),
    [
        (0, "sbatch: Job 6 to start at 2026-01-02T03:04:05 using 1 processors", "", "2026-01-02 03:04:05"),
        (1, "allocation failure: Requested nodes are busy", "", ""),
        (1, "allocation failure: Required node not available (down, drained or reserved)", "", ""),
        (1, "sbatch: error: Batch job submission failed: Invalid qos specification", "no such quality of service", ""),
        (1, f"sbatch: error: {POLICY}", "a limit of your account or its quality of service is reached", ""),
        (1, "allocation failure: Invalid node name specified", "sinfo -N lists them", ""),
        (1, "sbatch: unrecognized option '--foo=bar'", "which --sbatch hands to it as they are", ""),
        (1, "error: something new", "something new", ""),
    ],
)
def test_what_a_test_of_the_submission_says(code, words, refusal, start):
    said, when = Slurm().read_test(code, words)
    assert (refusal in said, bool(refusal), when) == (True, bool(said), start)


def test_a_refusal_is_said_once_with_what_it_means():
    words = "sbatch: error: invalid partition specified: x\nallocation failure: Invalid partition name specified\n"
    said = "invalid partition specified: x; Invalid partition name specified. It means: sinfo -s lists the partitions"
    assert explained(words) == said
    assert meaning("what?") == ""
    assert explained("") == "no reason given"
