"""Off a terminal every round has a line, whatever is measured."""

from types import SimpleNamespace

import heartbeat
from comm_parts import terminal as comm
from launch_parts.progress import Progress as LaunchProgress
from overhead_parts import terminal as overhead

OPTIONS = SimpleNamespace(rounds=3)


def lines(progress, records, capsys):
    for record in records:
        progress.record(record)
    return capsys.readouterr().err.splitlines()


def test_comm_and_overhead(capsys):
    blocks = [{"kind": "block", "round": number} for number in (1, 1, 2, 2, 3, 3)]
    for made in (comm, overhead):
        assert lines(made.Progress(OPTIONS), blocks, capsys) == [f"round {number} of 3" for number in (1, 2, 3)]


def test_heartbeat(capsys):
    records = [{"kind": "setup"}]
    for number in range(4):
        place = {"round": number, "warmup": number == 0}
        records += [{"kind": "others", **place}, {"kind": "block", **place}, {"kind": "block", **place}]
    said = lines(heartbeat.Progress(OPTIONS), records, capsys)
    assert said == ["a round of warm-up ...", "1 of 3 rounds", "2 of 3 rounds", "3 of 3 rounds"]


def test_launch(capsys):
    records = [
        {"kind": "answer", "round": 1, "command": "dtk --help"},
        {"kind": "others", "part": "answers", "round": 1},
        {"kind": "others", "part": "starts", "round": 3},
        {"kind": "idle", "round": 2, "ranks": "quiet"},
    ]
    said = lines(LaunchProgress(OPTIONS), records, capsys)
    assert said == ["answers: 1 of 3 rounds", "starts: 3 of 3 rounds", "idle, quiet: 2 of 3 rounds"]
