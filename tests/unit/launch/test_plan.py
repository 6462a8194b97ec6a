from pathlib import Path

import pytest
from dtk_launch.config import resolve
from dtk_launch.errors import PlanError
from dtk_launch.options import STRATEGIES, LaunchOptions
from dtk_launch.plan import build_plan


def decision(plan, key):
    (found,) = [d for d in plan.decisions if d.key == key]
    return found


@pytest.mark.parametrize(
    ("gpus", "given", "ranks"),
    [
        (0, {}, 1),
        (4, {}, 4),
        (4, {"device": "cpu"}, 1),
        (4, {"strategy": "single"}, 1),
        (4, {"strategy": "data_parallel"}, 1),
        (4, {"strategy": "fsdp"}, 4),
        (4, {"nproc": "gpu"}, 4),
        (4, {"nproc": "2"}, 2),
        (0, {"nproc": "cpu"}, 8),
        (4, {"nproc": "cpu", "device": "cpu"}, 8),
        (4, {"nproc": "6", "device": "cpu"}, 6),
        (0, {"nproc": "3"}, 3),
    ],
)
def test_number_of_ranks(plan, facts, gpus, given, ranks):
    assert plan(facts(gpus=gpus), **given).topology.nproc == ranks


@pytest.mark.parametrize(
    ("gpus", "given", "said"),
    [
        (0, {"nproc": "0"}, ["--nproc=0", "pass 1 or more"]),
        (0, {"nproc": "-1"}, ["'-1'", "neither a number"]),
        (0, {"nproc": "two"}, ["'two'", "auto, gpu or cpu"]),
        (2, {"nproc": "3"}, ["--nproc=3", "2 GPUs", "--device cpu"]),
        (2, {"nproc": "cpu"}, ["asks for 8 ranks", "2 GPUs"]),
        (0, {"nproc": "gpu"}, ["--nproc gpu", "no GPU", "made up"]),
        (2, {"nproc": "gpu", "device": "cpu"}, ["--device cpu was given"]),
        (0, {"device": "cuda"}, ["--device cuda", "no GPU"]),
        (0, {"device": "gpu"}, ["unknown device 'gpu'", "auto, cpu, cuda"]),
        (0, {"strategy": "dpp"}, ["unknown strategy 'dpp'", "did you mean ddp?"]),
        (0, {"strategy": "single", "nproc": "2"}, ["--strategy single", "2 ranks", "--nproc 1"]),
        (4, {"strategy": "data_parallel", "nproc": "2"}, ["--strategy data_parallel", "2 ranks", "--nproc 1"]),
        (0, {"max_restarts": -1}, ["--max-restarts=-1", "0 or more"]),
        (0, {"env": ("FOO",)}, ["'FOO'", "NAME=VALUE"]),
        (0, {"env": ("1X=2",)}, ["NAME=VALUE"]),
        (0, {"env": ("WORLD_SIZE=2",)}, ["WORLD_SIZE", "--nproc"]),
        (0, {"env": ("DTK_RUN_DIR=x",)}, ["DTK_RUN_DIR", "--run-dir"]),
        (0, {"name": "a/b"}, ["'a/b'", "--run-dir"]),
        (0, {"name": ".."}, ["folder"]),
        (0, {"nodes": "2"}, ["--nodes=2", "--rdzv HOST", "dtk submit --nodes 2"]),
        (0, {"nodes": "-1"}, ["--nodes=-1"]),
    ],
)
def test_what_does_not_fit_is_refused_with_the_reason(plan, facts, gpus, given, said):
    with pytest.raises(PlanError) as caught:
        plan(facts(gpus=gpus), **given)
    assert caught.value.exit_code == 2
    for words in said:
        assert words in str(caught.value)


@pytest.mark.parametrize(("version", "said"), [(None, "not installed"), ("2.9.1", "torch 2.9.1"), ("1.13.0", "2.10")])
def test_torch_that_is_missing_or_too_old(plan, facts, version, said):
    with pytest.raises(PlanError, match=said):
        plan(facts(torch_version=version))


def test_torch_version_with_letters(plan, facts):
    assert plan(facts(torch_version="2.10.0a0+git123")).topology.nproc == 1


def test_threads_share_the_cores_unless_the_user_has_set_them(plan, facts):
    assert dict(plan(nproc="3").env)["OMP_NUM_THREADS"] == "2"
    assert dict(plan(nproc="20").env)["OMP_NUM_THREADS"] == "1"
    left = plan(facts(environ=(("OMP_NUM_THREADS", "5"), ("PYTHONUNBUFFERED", "")), gpus=2))
    assert {"OMP_NUM_THREADS", "PYTHONUNBUFFERED"}.isdisjoint(dict(left.env))
    assert decision(left, "OMP_NUM_THREADS").source == "environment OMP_NUM_THREADS"


def test_restarts_do_not_share_a_store_with_the_dead(plan, facts):
    name = "TORCH_DISABLE_SHARE_RDZV_TCP_STORE"
    made = plan(max_restarts=1)
    assert dict(made.env)[name] == "1"
    assert decision(made, name).source == "max_restarts"
    assert name not in dict(plan().env)
    assert name not in dict(plan(facts(environ=((name, "0"),)), max_restarts=1).env)


def test_env_flags_come_last_and_win(plan):
    env = dict(plan(env=("OMP_NUM_THREADS=7", "A=b=c", "EMPTY=")).env)
    assert (env["OMP_NUM_THREADS"], env["A"], env["EMPTY"]) == ("7", "b=c", "")


@pytest.mark.parametrize(
    ("given", "name", "run_dir"),
    [
        ({}, "train", "/home/ada/project/runs/train"),
        ({"script": "jobs/fit.v2.py"}, "fit.v2", "/home/ada/project/runs/fit.v2"),
        ({"script": "pkg.train", "module": True}, "train", "/home/ada/project/runs/train"),
        ({"name": "big run"}, "big run", "/home/ada/project/runs/big run"),
        ({"run_dir": "out"}, "train", "/home/ada/project/out"),
        ({"run_dir": "/scratch/x", "name": "n"}, "n", "/scratch/x"),
    ],
)
def test_name_and_run_directory(plan, given, name, run_dir):
    made = plan(**given)
    assert (made.name, str(made.run_dir)) == (name, run_dir)
    assert (dict(made.env)["DTK_RUN_NAME"], dict(made.env)["DTK_RUN_DIR"]) == (name, run_dir)


def test_several_nodes_come_from_the_step(plan, facts, step):
    topology = plan(facts(allocation=step), nproc="2").topology
    assert (topology.nodes, topology.node_rank, topology.nproc) == (2, 1, 2)
    meeting = topology.rendezvous
    assert (meeting.host, meeting.id, meeting.is_host, meeting.node_name) == ("n1", "4711-1", False, "n2")
    assert 1024 < meeting.port < 32768


def test_one_node_inside_a_step_stands_alone(plan, facts, step):
    assert plan(facts(allocation=step), nodes="1").topology.rendezvous is None


def test_nodes_that_differ_from_the_step(plan, facts, step):
    with pytest.raises(PlanError, match=r"--nodes=3.*has 2.*pass --nodes 2"):
        plan(facts(allocation=step), nodes="3")


def test_two_dtk_on_a_node(plan, facts, step):
    from dataclasses import replace

    with pytest.raises(PlanError, match="--ntasks-per-node=1"):
        plan(facts(allocation=replace(step, tasks_per_node="2(x2)")), nodes="2")


def test_every_decision_has_a_source(plan, facts):
    made = plan(facts(environ=(("DTK_STRATEGY", "ddp"),)), nproc="2", env=("A=1",))
    assert decision(made, "nproc").source == "flag --nproc"
    assert decision(made, "strategy").source == "environment DTK_STRATEGY"
    assert decision(made, "max_restarts").source == "default"
    assert decision(made, "torch").source == "observed"
    assert decision(made, "env A").value == "1"
    assert all(d.source for d in made.decisions)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_known_strategies_are_accepted(plan, strategy):
    assert dict(plan(strategy=strategy).env)["DTK_STRATEGY"] == strategy


def test_an_unknown_strategy_names_the_variable_it_came_from(facts):
    settings = resolve(LaunchOptions, {"script": "train.py"}, {"DTK_STRATEGY": "dpp"}, Path("/w"))
    with pytest.raises(PlanError, match=r"--strategy=dpp \(environment DTK_STRATEGY\).*did you mean ddp"):
        build_plan(settings, facts())
