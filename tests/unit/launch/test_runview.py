"""A run read back from its directory, and its tables as text."""

import json
import math
import os
import socket
import time

import pytest
from dtk_launch import whereabouts
from dtk_launch.run_steps import last_checkpoint, last_metrics
from dtk_launch.runview import read_run
from dtk_launch.tables import (
    RANK_COLUMNS,
    RUN_COLUMNS,
    age,
    duration,
    header,
    plain,
    rank_rows,
    run_json,
    run_row,
    size,
)
from dtk_launch.whereabouts import NotRunning

NS = 1_000_000_000


@pytest.fixture
def made(tmp_path):
    """A run directory made up: a plan, and entries of nodes of which each was written `silence` seconds ago."""

    class Made:
        folder = tmp_path / "demo"

        def plan(self, nodes=1, nproc=2):
            self.put("plan.json", {"name": "demo", "topology": {"nodes": nodes, "nproc": nproc}})

        def node(self, node="0", silence=1.0, host="n1", launch="a", state="running", **facts):
            now = time.time()
            entry = {"launch": launch, "node": node, "host": host, "pid": 1, "state": state, "restart": 0}
            entry |= {"time_ns": int((now - silence) * NS), "started_ns": int((now - silence - 100) * NS), "ranks": []}
            path = self.put(f"nodes/{node}.json", entry | facts)
            os.utime(path, (now - silence, now - silence))
            return entry["time_ns"]

        def put(self, name, values):
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(values if isinstance(values, str) else json.dumps(values))
            return path

        def read(self):
            return read_run(self.folder)

    return Made()


def test_before_the_first_entry_all_ranks_are_starting(made):
    made.plan(nodes=2, nproc=2)
    view = made.read()
    assert (view.state, view.code, view.seconds) == ("starting", None, None)
    assert [(rank.rank, rank.state) for rank in view.ranks] == [(rank, "starting") for rank in range(4)]


def test_a_run_lives_as_long_as_its_entries_come(made):
    made.plan()
    made.node(silence=60.0)  # NFS may show it that old
    assert made.read().state == "running"
    made.node(silence=100.0)
    view = made.read()
    assert (view.state, view.why) == ("dead", "no end was recorded; its dtk on n1 has gone")
    assert view.seconds == pytest.approx(100, abs=0.1)


def test_a_dtk_of_this_host_is_looked_for(made):
    made.plan()
    gone = 2**22 + 1  # above the largest pid there is
    made.node(silence=7.0, host=socket.gethostname(), pid=os.getpid())
    assert made.read().state == "running"
    made.node(silence=7.0, host=socket.gethostname(), pid=gone)
    assert made.read().state == "dead"
    made.node(silence=3.0, host=socket.gethostname(), pid=gone)  # of another container with this name, then
    assert made.read().state == "running"


@pytest.mark.parametrize(("code", "state"), [(0, "ended"), (75, "preempted"), (7, "failed"), (130, "stopped")])
def test_an_end_is_that_of_the_verdict(made, code, state):
    made.plan()
    made.node(state="ended", exit_code=code, silence=1e6)
    view = made.read()
    assert (view.state, view.code, view.why) == (state, code, "by SIGINT" if code == 130 else "")
    assert view.over
    culprit = {"rank": 3, "how": "ValueError: bad (exit code 7)"} if code == 7 else None
    made.put("verdict.json", {"exit_code": code, "culprit": culprit})
    assert made.read().why == ("rank 3: ValueError: bad (exit code 7)" if code == 7 else view.why)


def test_a_run_that_was_stopped_because_it_hung_says_where(made):
    made.plan()
    made.node(state="ended", exit_code=124)
    hang = {"summary": "rank 1 sleeps in load (train.py:7)\x1b[2J", "action": "stop"}
    made.put("verdict.json", {"exit_code": 124, "culprit": None, "hang": hang})
    view = made.read()
    assert (view.state, view.why) == ("failed", f"hang: {hang['summary']}")
    said = "hang: rank 1 sleeps in load (train.py:7)\\x1b[2J"
    assert header(view)[0] == f"demo: failed (124): {said}"
    assert run_row(view)[-1] == said
    assert run_json(view)["why"] == f"hang: {hang['summary']}"


def test_a_run_that_hangs_while_it_runs_says_where(made):
    made.plan()
    made.node(hang="rank 1 sleeps in load (train.py:7)")
    view = made.read()
    assert (view.state, view.stuck) == ("running", True)
    assert header(view)[0] == "demo: running: hang: rank 1 sleeps in load (train.py:7)"
    assert run_row(view)[-1] == "hang: rank 1 sleeps in load (train.py:7)"
    made.node()
    assert (made.read().stuck, made.read().why) == (False, "")


def test_one_node_that_lives_is_a_run_that_lives_and_one_that_ended_tells_the_end(made):
    made.plan(nodes=2)
    made.node("0", state="ended", exit_code=1)
    made.node("1", host="n2")
    assert made.read().state == "running"
    made.node("1", host="n2", silence=1000.0)  # killed, and the other has noticed
    assert (made.read().state, made.read().hosts) == ("failed", ("n1", "n2"))


def test_nodes_that_may_come_are_not_waited_for(made):
    made.put("plan.json", {"topology": {"nodes": 4, "nproc": 2, "min_nodes": 1}})
    made.node(ranks=[{"rank": 0, "state": "running"}, {"rank": 1, "state": "running"}])
    view = made.read()
    assert ([rank.rank for rank in view.ranks], view.over) == ([0, 1], False)


@pytest.mark.parametrize("over", [False, True])
def test_the_ranks_of_a_node_that_says_nothing_are_lost(made, over):
    made.put("plan.json", {"name": "demo", "topology": {"nodes": 2, "nproc": 1, "min_nodes": 1}})
    made.node(
        "1", silence=200.0, host="n2", ranks=[{"rank": 1, "state": "running", "steps": 500, "rss": 5, "beat_ns": 1}]
    )
    ends = {"state": "ended", "exit_code": 0} if over else {}
    made.node("0", ranks=[{"rank": 0, "pid": 1, "state": "running", "steps": 30}], **ends)
    made.put("metrics.jsonl", json.dumps({"step": 700, "time": time.time(), "loss": 0.2}) + "\n")
    view = made.read()
    assert [rank.state for rank in view.ranks] == ["running", "lost"]
    assert "2 nodes (1 lost) x 1 ranks" in header(view)[1]
    assert [row[3] for row in rank_rows(view)] == ["700", "500"], "the one that lives is not 470 steps behind"
    assert view.ranks[1].rss is None


def test_entries_of_an_earlier_launch_do_not_count(made):
    made.plan(nodes=1)
    made.node("1", launch="before", state="ended", exit_code=3, silence=50.0, ranks=[{"rank": 9, "state": "running"}])
    made.node("0", launch="now", restart=2)
    view = made.read()
    assert (view.state, view.restarts, view.hosts) == ("running", 2, ("n1",))
    assert [rank.rank for rank in view.ranks] == [0, 1]


def test_the_age_of_a_heartbeat_needs_no_two_clocks(made):
    made.plan()
    ahead = int((time.time() + 7200) * NS)  # the clock of that host
    row = {"rank": 0, "pid": 5, "state": "running", "steps": 40, "rate": 4.0, "beat_ns": ahead - 5 * NS, "rss": 1}
    made.node(silence=2.0, ranks=[row], time_ns=ahead)
    rank = made.read().ranks[0]
    assert rank.beat_age == pytest.approx(7.0, abs=0.5)
    assert (rank.rate, rank.late, rank.slower) == (pytest.approx(0.2), False, None)


def test_slow_and_late_ranks_are_marked_while_they_run(made):
    made.plan(nproc=4)
    now = made.node()
    beat = {"pid": 5, "state": "running", "steps": 40, "beat_ns": now - NS // 10}
    rows = [{"rank": rank, **beat, "rate": rate} for rank, rate in enumerate((4.0, 4.1, 1.0))]
    late = {"rank": 3, **beat, "rate": 4.0, "beat_ns": now - 20 * NS}
    made.node(ranks=[*rows, late], time_ns=now)
    ranks = made.read().ranks
    assert [rank.slower for rank in ranks] == [None, None, 4.0, pytest.approx(80.0)]
    assert [rank.late for rank in ranks] == [False, False, False, True]
    made.node(ranks=[late], time_ns=now, state="ended", exit_code=0)
    assert [(rank.late, rank.rate) for rank in made.read().ranks] == [(False, 4.0)]


def test_the_last_line_of_metrics_is_found_from_the_end(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert last_metrics(path) == (None, 0.0, None)
    path.write_text('{"step": 1, "time": 5.5, "accuracy": 0.5, "loss": 2.5}\n')
    assert last_metrics(path) == (1, 5.5, ("loss", 2.5))
    with path.open("a") as file:
        file.write('{"step": 2, "time": 6.5, "accuracy": 0.75}\n{"step": 3, "time": 7, "lo')
    assert last_metrics(path) == (2, 6.5, ("accuracy", 0.75))
    path.write_text("x" * (1 << 17) + '\nnull\n{"step": 4, "time": 8, "loss": null}\n"text"\n')
    step, _, (name, value) = last_metrics(path)
    assert (step, name, math.isnan(value)) == (4, "loss", True)
    path.write_text('{"step": 5, "time": 9}\n')
    assert last_metrics(path) == (5, 9.0, None)


def test_the_last_checkpoint_is_a_committed_one(tmp_path):
    assert last_checkpoint(tmp_path) is None
    for name in ("checkpoints/step-00000100", "checkpoints/step-00000300.tmp", "step-00000200"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "manifest.json").touch()
    (tmp_path / "checkpoints/step-00000400").mkdir()
    assert last_checkpoint(tmp_path) == 200


def test_steps_and_loss_are_those_that_this_launch_has_logged(made):
    made.plan(nproc=1)
    now = made.node()
    made.node(ranks=[{"rank": 0, "pid": 5, "state": "running", "steps": 3, "beat_ns": now}], time_ns=now)
    made.put("metrics.jsonl", json.dumps({"step": 900, "time": now / 1e9 - 500, "loss": 0.25}) + "\n")
    row = dict(zip(RANK_COLUMNS, rank_rows(made.read())[0], strict=True))
    assert (row["step"], row["loss"]) == ("3", "-")
    made.put("metrics.jsonl", json.dumps({"step": 950, "time": now / 1e9, "loss": 0.25}) + "\n")
    row = dict(zip(RANK_COLUMNS, rank_rows(made.read())[0], strict=True))
    assert (row["step"], row["loss"]) == ("950", "0.25")


@pytest.mark.parametrize(
    ("goal", "logged", "beats", "eta"),
    [
        ({"from": 0, "until": 1000, "time": -99}, (500, 0), None, 100),  # 500 steps took 100 s
        ({"from": 400, "until": 1000, "time": -50}, (500, 0), None, 250),  # went on from 400
        ({"from": 400, "until": 1000, "time": -50}, (500, -10), None, 190),  # and that was 10 s ago
        ({"from": 0, "until": 1000, "time": -50}, None, 200, 200),  # does not log
        ({"from": 0, "until": 1000, "time": -50}, None, None, None),
        ({"from": 500, "until": 1000, "time": -50}, (500, 0), None, None),
        ({"from": 0, "until": 500, "time": -50}, (500, 0), None, None),  # it saves, or evaluates
        ({"from": 0, "until": 1000, "time": -5000}, (500, 0), None, None),  # of an earlier launch
        ({"from": 0, "until": None, "time": -50}, (500, 0), None, None),
        (None, (500, 0), None, None),
    ],
)
def test_the_end_is_foretold_by_the_pace_since_the_start(made, goal, logged, beats, eta):
    made.plan(nproc=1)
    now = time.time()
    row = {"rank": 0, "pid": 7, "state": "running"}
    made.node(silence=0.0, ranks=[row | ({"steps": beats, "beat_ns": int(now * NS)} if beats else {})])
    if goal:
        made.put("goal.json", goal | {"time": now + goal["time"]})
    if logged:
        made.put("metrics.jsonl", json.dumps({"step": logged[0], "time": now + logged[1], "loss": 0.2}) + "\n")
    view = made.read()
    assert view.eta == (None if eta is None else pytest.approx(eta, abs=2))
    assert ("to end at step 1000, in about 0:0" in header(view)[1]) == (eta is not None)


def test_a_rank_that_is_behind_has_a_step_of_its_own(made):
    made.plan(nproc=3)
    now = made.node()
    rows = [{"rank": rank, "pid": 5, "state": "running", "beat_ns": now} for rank in range(3)]
    made.node(ranks=[rows[0] | {"steps": 50}, rows[1] | {"steps": 47}, rows[2]], time_ns=now)
    made.put("metrics.jsonl", json.dumps({"step": 950, "time": now / 1e9}) + "\n")
    assert [row[RANK_COLUMNS.index("step")] for row in rank_rows(made.read())] == ["950", "947", "950"]


def test_the_tables_as_text(made, golden, monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    made.plan(nodes=2, nproc=2)
    rows = [
        {"rank": 0, "state": "running", "steps": 400, "rate": 12.3456, "rss": 3 << 29, "cpu": 99, "gpu": 70 << 30},
        {"rank": 2, "state": "ended", "code": 7, "steps": 399, "rate": 2.0},
        {"rank": 3, "state": "killed"},
    ]
    made.node(ranks=rows[:1], restart=1)
    made.node("1", host="n2.example.org", ranks=rows[1:])
    made.put("checkpoints/step-00000400/manifest.json", "")
    made.put("metrics.jsonl", json.dumps({"step": 450, "time": time.time(), "loss": 0.34567}) + "\n")
    view = made.read()
    seconds = "for 0:01:41"
    assert seconds in header(view)[1] or "for 0:01:42" in header(view)[1]
    top = "\n".join(header(view)).replace("0:01:42", "0:01:41") + "\n" + plain(RANK_COLUMNS, rank_rows(view))
    runs = [{"started": 0.0, "seconds": 93784.0}, {"state": "failed", "code": 7, "why": "rank 2: exit code 7"}]
    shown = [run_row(type(view)(**{**vars(view), "started": 86400.0, "seconds": 101.0, **changes})) for changes in runs]
    golden("top.txt", f"{top}\n{plain(RUN_COLUMNS, shown)}")


def test_json_has_no_nan(made):
    made.plan(nproc=2)
    now = made.node()
    beat = {"pid": 5, "state": "running", "steps": 40, "beat_ns": now}
    made.node(ranks=[{"rank": 0, **beat, "rate": 4.0}, {"rank": 1, **beat, "rate": 0.0}], time_ns=now)
    made.put("metrics.jsonl", json.dumps({"step": 4, "time": now / 1e9, "loss": None}) + "\n")
    values = json.loads(json.dumps(run_json(made.read()), allow_nan=False))
    assert values["metric"] == {"loss": None}
    assert (values["ranks"][1]["slower"], values["ranks"][1]["mark"]) == (None, "straggler")
    assert "ranks" not in run_json(made.read(), ranks=False)


@pytest.mark.parametrize("garbage", ["", "[]", "null", '{"ranks": [1, {"rank": "x"}, {}], "time_ns": null}'])
def test_garbage_in_an_entry_is_no_traceback(made, garbage):
    made.plan()
    made.put("nodes/0.json", garbage)
    assert len(made.read().ranks) in (0, 2)


def test_words_for_numbers():
    sizes = {None: "-", 0: "0 B", 999: "999 B", 1 << 20: "1 MiB", 3 << 29: "1.5 GiB", 1023 << 30: "0.999 TiB"}
    assert {count: size(count) for count in sizes} == sizes
    assert [age(s) for s in (0.2, 119, 121, 7300, 200000)] == ["0 s", "119 s", "2 min", "2 h", "2 d"]
    assert [duration(s) for s in (5, 3725, 93784)] == ["0:00:05", "1:02:05", "1 d 02:03:04"]


@pytest.mark.parametrize(
    ("state", "verdict", "said"),
    [
        ("ended", {"exit_code": 0}, "this run is over: demo: ended"),
        ("ended", {"exit_code": 7, "culprit": {"rank": 1, "how": "exit code 7"}}, "failed (7): rank 1: exit code 7"),
        ("running", {}, "no rank of this run has started yet"),
    ],
)
def test_stacks_of_a_run_without_ranks_tell_how_it_is(made, state, verdict, said):
    made.plan()
    made.node(state=state, **({"exit_code": verdict["exit_code"]} if verdict else {}))
    made.put("verdict.json", verdict)
    with pytest.raises(NotRunning) as caught:
        whereabouts.show(made.folder, as_json=False)
    assert said in str(caught.value)
    assert "host" not in str(caught.value)
