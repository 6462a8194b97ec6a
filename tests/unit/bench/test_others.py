import subprocess
import sys

from bench_parts.others import Others, cores_by_round, threads_in_words
from bench_parts.statistics import wilson
from bench_parts.watch import own_cpu_seconds, watching

BURN = "import time\nwhile time.process_time() < 0.3: pass\nprint('burnt', flush=True)\ninput()"


def block(number: int, seconds: float, others: float | None) -> dict:
    return {"kind": "block", "round": number, "seconds": seconds, "others_cpu_seconds": others}


def test_blocks_of_a_round_are_added_up():
    blocks = [block(1, 1.0, 0.0), block(1, 3.0, 2.0), block(2, 1.0, 0.01), block(3, 2.0, None)]
    assert cores_by_round(blocks) == {1: 0.5, 2: 0.01}
    others = Others.by_round(blocks)
    assert others is not None
    assert (others.worst, others.worst_at, others.busy, others.count) == (0.5, "round 1", 1, 2)
    assert others.words() == "0.26 cores busy in the median round, 0.50 in the worst (round 1)"


def test_a_quiet_machine_does_not_matter():
    others = Others.by_round([block(1, 10.0, 0.2), block(2, 10.0, 0.3)])
    assert others is not None
    assert not others.matter


def test_what_could_not_be_seen_is_not_zero():
    assert Others.by_round([block(1, 1.0, None)]) is None
    assert Others.of({}) is None


def test_threads_are_said_once_or_by_command():
    same = [{"kind": "start", "command": name, "threads": 1} for name in ("a", "b")]
    assert threads_in_words(same) == "1"
    assert threads_in_words([same[0], {**same[1], "threads": None}]) == "1 (`a`) and unset (`b`)"
    assert threads_in_words([{"kind": "start", "command": "a"}]) == "", "an older result does not say"


def test_children_count_as_own_while_they_live_and_when_they_are_gone():
    before = own_cpu_seconds()
    script = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {BURN!r}])"  # a child of the child
    child = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "burnt\n"
    if sys.platform == "linux":
        assert own_cpu_seconds() - before >= 0.29
    child.communicate("\n")
    assert own_cpu_seconds() - before >= 0.29


def test_watching_gives_what_a_record_needs():
    with watching() as seen:
        pass
    assert set(seen) == {"seconds", "others_cpu_seconds"}


def test_wilson_knows_that_all_of_few_is_not_certain():
    """At the ends it is z^2 / (n + z^2) wide, with z = 1.96."""
    low, high = wilson(10, 10)
    assert (round(low, 4), round(high, 4)) == (0.7225, 1.0)
    low, high = wilson(0, 10)
    assert (round(low, 4), round(high, 4)) == (0.0, 0.2775)
    assert wilson(5, 10)[0] < 0.5 < wilson(5, 10)[1]
    assert wilson(740, 740)[0] > wilson(74, 74)[0]
