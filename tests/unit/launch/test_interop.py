"""What other libraries' readers are given, as a table; and what is refused."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from dtk_launch.cli import app
from dtk_launch.config import resolve
from dtk_launch.errors import PlanError
from dtk_launch.interop import NO_FSDP_ON_CPUS
from dtk_launch.jobs import build_job
from dtk_launch.meeting import Meeting
from dtk_launch.needs import check_needs
from dtk_launch.options import LaunchOptions, SubmitOptions
from dtk_launch.tuning import FLAGS

BASE = {"OMP_NUM_THREADS", "PYTHONUNBUFFERED", "DTK_RUN_DIR", "DTK_RUN_NAME", "DTK_STRATEGY", "DTK_DEVICE"}

CASES = {
    "auto": (0, {}),
    "auto with a precision": (0, {"precision": "bf16"}),
    "single": (0, {"strategy": "single", "precision": "fp32"}),
    "ddp on CPUs": (0, {"strategy": "ddp", "nproc": "2", "precision": "bf16"}),
    "ddp on GPUs": (4, {"strategy": "ddp", "precision": "fp16"}),
    "fsdp on GPUs": (2, {"strategy": "fsdp"}),
    "fsdp by classes": (
        2,
        {"strategy": "fsdp", "fsdp_wrap": "BertLayer,BertPooler", "offload": "cpu", "fsdp_state_dict": "full",
         "fsdp_reshard": "false", "fsdp_activation_checkpointing": "true", "precision": "bf16"},
    ),
    "fsdp by size": (2, {"strategy": "fsdp", "fsdp_wrap": "100000"}),
    "fsdp as a whole": (2, {"strategy": "fsdp", "fsdp_wrap": "none"}),
    "fsdp on CPUs": (0, {"strategy": "fsdp", "nproc": "2", "fsdp_wrap": "auto"}),
    "deepspeed on CPUs": (0, {"strategy": "deepspeed", "nproc": "2", "precision": "bf16"}),
    "deepspeed on CPUs beside GPUs": (4, {"strategy": "deepspeed", "nproc": "2", "device": "cpu", "zero_stage": "1"}),
    "zero 0": (2, {"strategy": "deepspeed", "zero_stage": "0"}),
    "zero 2 offloaded": (2, {"strategy": "deepspeed", "zero_stage": "2", "offload": "cpu"}),
    "zero 3 offloaded": (2, {"strategy": "deepspeed", "zero_stage": "3", "offload": "cpu"}),
    "a ds_config": (2, {"strategy": "deepspeed", "deepspeed_config": "conf/ds.json"}),
}  # fmt: skip


def test_variables_by_options(plan, facts, golden):
    lines = []
    for title, (gpus, given) in CASES.items():
        env = dict(plan(facts(gpus=gpus), **given).env)
        lines += [f"# {title}", *(f"{name}={value}" for name, value in env.items() if name not in BASE), ""]
    golden("interop.txt", "\n".join(lines))


def test_every_variable_has_a_decision_and_its_source(plan, facts):
    made = plan(facts(gpus=2), strategy="fsdp", precision="bf16")
    found = {d.key: d for d in made.decisions}
    assert set(dict(made.env)) - BASE <= set(found)
    assert found["FSDP_VERSION"].source == found["LT_STRATEGY"].source == "flag --strategy"
    assert (found["LT_DEVICES"].source, found["LT_DEVICES"].why) == ("default", "follows from --nproc")
    assert (found["DTK_PRECISION"].value, found["DTK_PRECISION"].source) == ("bf16", "flag --precision")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"precision": "half"}, ["--precision=half (flag --precision)", "known: auto, bf16, fp16, fp32"]),
        ({"zero_stage": "2"}, ["--zero-stage=2", "is for strategy deepspeed", "the strategy is auto"]),
        ({"strategy": "fsdp", "zero_stage": "2"}, ["--zero-stage=2", "the strategy is fsdp"]),
        ({"strategy": "deepspeed", "zero_stage": "4"}, ["--zero-stage=4", "known: 0, 1, 2, 3"]),
        ({"strategy": "deepspeed", "fsdp_wrap": "auto"}, ["--fsdp-wrap=auto", "is for strategy fsdp"]),
        ({"strategy": "ddp", "offload": "cpu"}, ["--offload=cpu", "deepspeed or fsdp", "ddp"]),
        ({"strategy": "ddp", "fsdp_state_dict": "full"}, ["--fsdp-state-dict=full", "pass --strategy fsdp"]),
        ({"strategy": "fsdp", "fsdp_reshard": "no"}, ["--fsdp-reshard=no", "known: false, true"]),
        ({"strategy": "fsdp", "fsdp_wrap": "0"}, ["--fsdp-wrap='0'", "--fsdp-wrap BertLayer"]),
        ({"strategy": "fsdp", "fsdp_wrap": "A,,B"}, ["--fsdp-wrap='A,,B'"]),
        ({"strategy": "fsdp", "offload": "cpu"}, ["--offload=cpu", "needs a GPU"]),
        ({"strategy": "deepspeed", "zero_stage": "0", "offload": "cpu"}, ["--offload=cpu", "stage 0"]),
        ({"strategy": "deepspeed", "deepspeed_config": "d.json", "zero_stage": "3"}, ["--zero-stage=3", "d.json"]),
        ({"strategy": "deepspeed", "deepspeed_config": "d.json", "offload": "cpu"}, ["--offload=cpu", "the file says"]),
        ({"env": ("DTK_ZERO_STAGE=3",)}, ["DTK_ZERO_STAGE", "pass --zero-stage"]),
    ],
)
def test_what_does_not_fit_is_refused(plan, given, said):
    with pytest.raises(PlanError) as caught:
        plan(**given)
    for words in said:
        assert words in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "given", "said"),
    [
        ("ACCELERATE_USE_FSDP", "true", {"strategy": "ddp"}, "--strategy ddp means ACCELERATE_USE_FSDP=false"),
        ("ACCELERATE_USE_MEGATRON_LM", "True", {"strategy": "fsdp"}, "ACCELERATE_USE_MEGATRON_LM=false"),
        ("ACCELERATE_USE_CPU", "true", {"strategy": "deepspeed"}, "ACCELERATE_USE_CPU=false"),
        ("ACCELERATE_MIXED_PRECISION", "fp16", {"precision": "bf16"}, "--precision bf16 means"),
        ("ACCELERATE_DEEPSPEED_ZERO_STAGE", "2", {"strategy": "deepspeed", "zero_stage": "3"}, "--zero-stage 3 means"),
        ("LT_STRATEGY", "fsdp", {"strategy": "ddp"}, "pass --env LT_STRATEGY=fsdp to insist"),
        ("LT_DEVICES", "8", {"strategy": "ddp"}, "--nproc auto means LT_DEVICES=1"),
    ],
)
def test_a_variable_that_contradicts_an_option_is_refused_unless_insisted_on(plan, facts, name, value, given, said):
    machine = facts(environ=((name, value),))
    with pytest.raises(PlanError, match=said):
        plan(machine, **given)
    assert dict(plan(machine, **given, env=(f"{name}={value}",)).env)[name] == value
    inside = replace(machine, environ=(("DTK_SUPERVISOR", "here:1"), (name, value)))
    assert dict(plan(inside, **given).env)[name] != value


def test_a_variable_that_replaces_a_default_is_left_and_noted(plan, facts):
    preset = (("ACCELERATE_DEEPSPEED_ZERO_STAGE", "3"), ("ACCELERATE_USE_DEEPSPEED", "TRUE"))
    made = plan(facts(environ=preset), strategy="deepspeed")
    assert "ACCELERATE_DEEPSPEED_ZERO_STAGE" not in dict(made.env)
    assert dict(made.env)["ACCELERATE_USE_DEEPSPEED"] == "true"
    (note,) = [d for d in made.decisions if d.key == "ACCELERATE_DEEPSPEED_ZERO_STAGE"]
    assert (note.value, note.source) == ("3", "environment ACCELERATE_DEEPSPEED_ZERO_STAGE")


def test_strays_are_named_where_nothing_is_set(plan, facts):
    made = plan(facts(environ=(("ACCELERATE_USE_FSDP", "true"), ("PET_X", "1"))))
    assert [d.why for d in made.decisions if d.key == "ACCELERATE_USE_FSDP"] == [
        "other libraries obey it; unset it if it is a stray"
    ]
    assert "ACCELERATE_USE_FSDP" not in dict(made.env)


def test_where_nodes_come_and_go_their_number_is_not_told(plan, facts):
    made = plan(
        facts(meeting=Meeting(("10.0.0.1",), True, "10.0.0.1")), strategy="ddp", nodes="1:2", rdzv="n1", max_restarts=1
    )
    assert "LT_NUM_NODES" not in dict(made.env)
    assert dict(made.env)["LT_STRATEGY"] == "ddp"


def test_variables_of_the_options_are_settings_too(facts):
    environ = {"DTK_STRATEGY": "deepspeed", "DTK_ZERO_STAGE": "3", "DTK_PRECISION": "bf16"}
    options = resolve(LaunchOptions, {"script": "t.py"}, environ, facts().cwd).options
    assert (options.strategy, options.zero_stage, options.precision) == ("deepspeed", "3", "bf16")


def test_a_job_passes_them_on(facts):
    options = SubmitOptions(script="t.py", strategy="fsdp", precision="bf16", fsdp_wrap="BertLayer", offload="cpu")
    words = build_job(options, facts()).launch
    for flag, value in (("--precision", "bf16"), ("--fsdp-wrap", "BertLayer"), ("--offload", "cpu")):
        assert words[words.index(flag) + 1] == value
    assert "--zero-stage" not in words
    with pytest.raises(PlanError, match="is for strategy deepspeed"):
        build_job(SubmitOptions(script="t.py", zero_stage="2"), facts())


def test_deepspeed_and_its_file_are_looked_for_before_the_start(tmp_path, monkeypatch):
    def needs(**given):
        check_needs(LaunchOptions(script="t.py", **given), tmp_path, {})

    needs(strategy="fsdp")
    monkeypatch.setattr("dtk_launch.needs.installed_version", lambda name: None)
    with pytest.raises(PlanError, match="deepspeed is not installed"):
        needs(strategy="deepspeed")
    monkeypatch.setattr("dtk_launch.needs.installed_version", lambda name: "0.19.8")
    with pytest.raises(PlanError, match="cannot be read: No such file"):
        needs(strategy="deepspeed", deepspeed_config="ds.json")
    for text, said in (("{", "is not JSON"), ("[]", "not a JSON object")):
        (tmp_path / "ds.json").write_text(text)
        with pytest.raises(PlanError, match=said):
            needs(strategy="deepspeed", deepspeed_config="ds.json")
    (tmp_path / "ds.json").write_text('{"zero_optimization": {"stage": 1}}')
    needs(strategy="deepspeed", deepspeed_config="ds.json")


def test_the_policy_that_accelerate_refuses_is_for_cpus_alone(plan, facts):
    assert dict(plan(strategy="fsdp").env)["FSDP_AUTO_WRAP_POLICY"] == NO_FSDP_ON_CPUS
    assert dict(plan(facts(gpus=1), strategy="fsdp").env)["FSDP_AUTO_WRAP_POLICY"] == "TRANSFORMER_BASED_WRAP"


def test_what_the_runtime_is_told_has_its_names():
    from dist_toolkit.world import TUNING

    assert set(FLAGS) == {"DTK_PRECISION", *TUNING}


PAGE = (Path(__file__).parents[3] / "docs" / "other-libraries.md").read_text(encoding="utf-8")


def test_the_pages_table_names_every_variable_that_a_launch_can_set(plan, facts):
    rows = PAGE.partition("| variable |")[2].partition("\n\n")[0].splitlines()[2:]
    named = {name for row in rows for name in re.findall(r"`([A-Z][A-Z_0-9]+)`", row)}
    can_be_set = {name for gpus, given in CASES.values() for name in dict(plan(facts(gpus=gpus), **given).env)}
    assert {name for name in can_be_set - BASE if not name.startswith("DTK_")} == named


def test_the_pages_commands_can_be_planned(plan, facts):
    (block,) = re.findall(r"^```bash\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    for line in block.splitlines():
        dtk, command, *words = line.split()
        assert dtk == "dtk"
        values = app.commands[command].make_context(command, words).params
        given = {name: value for name, value in values.items() if value not in ((), False, None)}
        if command == "submit":
            assert build_job(SubmitOptions(**given), facts()).nodes == 2
        else:
            assert plan(facts(gpus=2), **given).strategy == given["strategy"]
