"""The launcher's options of a strategy and the script's, put together."""

import pytest

import dist_toolkit as dtk
from dist_toolkit.errors import ConfigError
from dist_toolkit.strategies.told import settle_precision, tuned
from dist_toolkit.world import TUNING, LaunchSettings


@pytest.mark.parametrize(
    ("strategy", "told", "outcome"),
    [
        (dtk.DeepSpeed(), {"DTK_ZERO_STAGE": "3", "DTK_OFFLOAD": "cpu"}, dtk.DeepSpeed(stage=3, offload="cpu")),
        (dtk.DeepSpeed(stage=0), {"DTK_ZERO_STAGE": "0"}, dtk.DeepSpeed(stage=0)),
        (dtk.DeepSpeed(), {"DTK_DEEPSPEED_CONFIG": "/w/ds.json"}, dtk.DeepSpeed(config="/w/ds.json")),
        (dtk.FSDP(), {"DTK_FSDP_WRAP": "Block, Head"}, dtk.FSDP(wrap=("Block", "Head"))),
        (dtk.FSDP(), {"DTK_FSDP_WRAP": "1000", "DTK_OFFLOAD": "cpu"}, dtk.FSDP(wrap=1000, cpu_offload=True)),
        (dtk.FSDP(replicas=2), {"DTK_FSDP_WRAP": "none"}, dtk.FSDP(replicas=2, wrap=())),
        (dtk.FSDP(), {"DTK_FSDP_WRAP": "auto", "DTK_FSDP_RESHARD": "false"}, dtk.FSDP(reshard_after_forward=False)),
        (dtk.FSDP(), {"DTK_FSDP_ACTIVATION_CHECKPOINTING": "true"}, dtk.FSDP(activation_checkpointing=True)),
        (dtk.DDP(static_graph=True), {}, dtk.DDP(static_graph=True)),
    ],
)
def test_the_launcher_fills_what_the_script_leaves_open(strategy, told, outcome):
    assert tuned(strategy, told.items()) == outcome


@pytest.mark.parametrize(
    ("strategy", "variable", "value", "said"),
    [
        (dtk.DeepSpeed(stage=3), "DTK_ZERO_STAGE", "2", r"DeepSpeed\(stage=3\), the launcher for 2 \(DTK_ZERO_STAGE\)"),
        (dtk.FSDP(wrap=10), "DTK_FSDP_WRAP", "auto", r"FSDP\(wrap=10\), the launcher for 'auto'"),
        (dtk.DDP(), "DTK_ZERO_STAGE", "2", "is for strategy deepspeed, but this engine's is 'ddp'"),
        (dtk.DDP(), "DTK_OFFLOAD", "cpu", "is for strategy deepspeed or fsdp"),
        (dtk.DeepSpeed(), "DTK_ZERO_STAGE", "4", "stages 0, 1, 2 and 3"),
        (dtk.FSDP(), "DTK_FSDP_RESHARD", "yes", "neither true nor false"),
        (dtk.FSDP(), "DTK_OFFLOAD", "disk", "known: none, cpu"),
        (dtk.FSDP(), "DTK_FSDP_WRAP", "0", "not a positive number"),
    ],
)
def test_contradictions_and_unknown_values_are_named(strategy, variable, value, said):
    with pytest.raises(ConfigError, match=said):
        tuned(strategy, [(variable, value)])


def test_precision_is_the_scripts_or_the_launchers():
    assert (settle_precision(None, None), settle_precision(None, "bf16")) == ("fp32", "bf16")
    assert (settle_precision("bf16", None), settle_precision("bf16", "bf16")) == ("bf16", "bf16")
    with pytest.raises(ConfigError, match=r"script asks for precision 'fp32', the launcher for 'bf16' \(DTK_PRECISION"):
        settle_precision("fp32", "bf16")


def test_settings_are_read_from_the_environment():
    told = LaunchSettings.from_env({"DTK_PRECISION": "bf16", "DTK_ZERO_STAGE": "3", "DTK_OFFLOAD": ""})
    assert (told.precision, told.tuning) == ("bf16", (("DTK_ZERO_STAGE", "3"),))
    assert LaunchSettings.from_env({"DTK_PRECISION": "auto"}).precision is None
    with pytest.raises(ConfigError, match="DTK_PRECISION='half'"):
        LaunchSettings.from_env({"DTK_PRECISION": "half"})


def test_every_variable_is_some_strategys():
    from dist_toolkit.strategies.told import _FIELDS

    assert {variable for fields in _FIELDS.values() for variable in fields} == set(TUNING)
