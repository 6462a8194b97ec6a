from bench_parts.markdown import text
from verdict_parts.report import as_json, render, show
from verdict_parts.scenarios import KINDS, PEERS, WORDS, scenarios

from tests.unit.bench.machine_record import MACHINE

VERDICT = {**MACHINE, "options": {"seeds": 2, "only": ""}}


def ran(group, name, dtk, torchrun, cores=0.02):
    return {
        "kind": "run", "group": group, "name": name, "ranks": 2, "truth": 1, "dtk": dtk, "how": "exit code 3",
        "torchrun": torchrun, "exit_codes": [3], "threads": 1, "seconds": 5.0, "others_cpu_seconds": 5 * cores,
    }  # fmt: skip


def run(cores=0.02):
    first, second = list(scenarios(1))[:2]
    return [
        VERDICT,
        ran(first.group, first.name, 1, [1]),
        ran(first.group, "rank 1 of 2 calls sys.exit(3)", 1, [0]),
        ran(second.group, second.name, 1, [], cores),
        {"kind": "end", "status": "complete"},
    ]


def test_a_whole_report(golden):
    golden("bench/verdict.md", text(render(run(0.4))))


def test_all_right_is_not_certain(capsys):
    found = as_json(run())["all"]
    assert (found["runs"], found["dtk"]["right"], found["dtk"]["share"]) == (3, 3, 1.0)
    low, high = found["dtk"]["interval"]
    assert 0 < low < 0.5
    assert round(high, 9) == 1.0
    show(run())
    assert "3 of 3, 100% (44% to 100%)" in capsys.readouterr().out


def test_an_older_result_still_has_a_report():
    new = ("threads", "seconds", "others_cpu_seconds")
    records = [{name: value for name, value in record.items() if name not in new} for record in run()]
    words = text(render(records))
    assert "How busy other programs kept the cores was not recorded." in words
    assert "OMP_NUM_THREADS" not in words


def test_nothing_measured_has_a_report():
    assert "Who failed first" in text(render([VERDICT, {"kind": "end", "status": "failed"}]))


def test_every_scenario_is_named_once_and_in_words():
    found = list(scenarios(3))
    assert len({(each.group, each.name) for each in found}) == len(found), "a resumed run knows them by name"
    assert set(KINDS) <= set(WORDS)
    for each in found:
        assert any(words in each.name for words in WORDS.values()), each.name
        if not each.group.startswith(("cascade", "a crash")):
            assert each.group in PEERS.values()
