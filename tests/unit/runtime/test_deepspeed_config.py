"""Merging a ds_config with the script's arguments: pure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import dist_toolkit as dtk
from dist_toolkit.errors import ConfigError
from dist_toolkit.strategies.deepspeed_config import Wanted, merge
from dist_toolkit.strategies.deepspeed_keys import REFUSED
from dist_toolkit.strategies.deepspeed_load import read_config

TWO = Wanted(ranks=2, numel=1_000_000, largest=1000)


def refused(config: dict[str, Any], wanted: Wanted = TWO) -> str:
    with pytest.raises(ConfigError) as caught:
        merge(config, wanted)
    return str(caught.value)


def test_without_a_file() -> None:
    made = merge({}, TWO)
    assert (made.stage, made.offload, made.clip, made.ignored) == (2, "none", 0.0, ())
    assert made.config["gradient_accumulation_steps"] == 1
    assert made.config["managed_gradient_accumulation"] is False
    assert made.config["zero_optimization"] == {"stage": 2, "reduce_bucket_size": 125_000}


def test_a_file_as_transformers_has_it() -> None:
    file = {
        "fp16": {"enabled": "auto", "loss_scale": 0, "loss_scale_window": 500, "initial_scale_power": 12},
        "bf16": {"enabled": "auto"},
        "optimizer": {"type": "AdamW", "params": {"lr": 0.1, "betas": "auto", "weight_decay": "auto"}},
        "scheduler": {"type": "WarmupLR", "params": {"warmup_min_lr": 0.0, "warmup_max_lr": 0.1}},
        "zero_optimization": {"stage": 3, "overlap_comm": True, "reduce_bucket_size": "auto", "sub_group_size": 1e9},
        "gradient_accumulation_steps": "auto", "gradient_clipping": "auto", "train_batch_size": "auto",
        "train_micro_batch_size_per_gpu": "auto", "steps_per_print": 10, "wall_clock_breakdown": False,
    }  # fmt: skip
    kept = json.dumps(file)
    made = merge(file, Wanted(ranks=2, precision="fp16", optimizer=False, numel=8000, largest=1000, device="cuda"))
    assert json.dumps(file) == kept, "the caller's dict is his"
    assert (made.stage, made.scale, made.scale_interval, made.clip) == (3, 4096.0, 500, 0.0)
    assert made.config["optimizer"] == {"type": "AdamW", "params": {"lr": 0.1}}
    assert made.config["zero_optimization"]["overlap_comm"] is True
    assert made.config["zero_optimization"]["reduce_bucket_size"] == 1000
    assert "fp16" not in made.config


def test_what_says_the_same_twice_is_no_conflict() -> None:
    zero = {"stage": 3, "offload_optimizer": {"device": "cpu"}, "offload_param": {"device": "cpu"}}
    wanted = Wanted(ranks=4, stage=3, offload="cpu", precision="bf16")
    sizes = {"train_batch_size": 64, "train_micro_batch_size_per_gpu": 8, "gradient_accumulation_steps": 2}
    made = merge({"zero_optimization": zero, "bf16": {"enabled": True}, "fp16": {"enabled": False}, **sizes}, wanted)
    assert (made.stage, made.offload) == (3, "cpu")
    assert made.config["train_micro_batch_size_per_gpu"] == 8
    assert made.config["zero_optimization"]["offload_param"] == {"device": "cpu", "pin_memory": False}


def test_offload_of_the_arguments() -> None:
    one = merge({}, Wanted(ranks=2, stage=1, offload="cpu", device="cuda")).config["zero_optimization"]
    assert one["offload_optimizer"] == {"device": "cpu", "pin_memory": True}
    assert "offload_param" not in one
    three = merge({}, Wanted(ranks=2, stage=3, offload="cpu")).config["zero_optimization"]
    assert three["offload_param"]["device"] == three["offload_optimizer"]["device"] == "cpu"


@pytest.mark.parametrize(
    ("config", "wanted", "words"),
    [
        ({"zero_optimisation": {}}, TWO, ["'zero_optimisation'", "did you mean 'zero_optimization'?"]),
        ({"zzz": 1}, TWO, ["unknown key 'zzz'"]),
        ({"zero_optimization": {"stage": 2}}, Wanted(2, stage=3), ["stage is 2", "stage=3", "drop one"]),
        ({"zero_optimization": {}}, Wanted(2, stage=3), ["zero_optimization.stage is 0", "stage=3"]),
        ({"zero_optimization": {"stage": 4}}, TWO, ["stage is 4"]),
        ({"zero_optimization": 3}, TWO, ["zero_optimization is 3", "section"]),
        ({"zero_optimization": {"stage": 2, "offload_optimizer": {"device": "cpu"}}}, Wanted(2, offload="none"),
         ["offload_optimizer.device is 'cpu'", "offload='none'"]),
        ({"zero_optimization": {"stage": 3, "offload_param": {"device": "none"}}}, Wanted(2, offload="cpu"),
         ["offload_param.device is 'none'", "offload='cpu'"]),
        ({"zero_optimization": {"stage": 2, "offload_optimizer": {"device": "nvme"}}}, TWO, ["nvme", "use 'cpu'"]),
        ({"zero_optimization": {"stage": 2, "offload_param": {"device": "cpu"}}}, TWO, ["offload_param needs stage 3"]),
        ({}, Wanted(2, stage=0, offload="cpu"), ["needs stage 1, 2 or 3"]),
        ({"zero_optimization": {"stage": 3, "zero_quantized_weights": True}}, TWO, ["zero_quantized_weights"]),
        ({"bf16": {"enabled": True}}, TWO, ["bf16.enabled is true", "precision='fp32'", "precision='bf16'"]),
        ({"bf16": {"enabled": False}}, Wanted(2, precision="bf16"), ["bf16.enabled is false", "precision='bf16'"]),
        ({"fp16": {"enabled": True}}, Wanted(2, precision="bf16"), ["fp16.enabled is true", "precision='bf16'"]),
        ({"bf16": {}, "bfloat16": {}}, TWO, ["one section"]),
        ({"fp16": {"enabled": True, "loss_scale": 128}}, Wanted(2, precision="fp16"), ["fp16.loss_scale is 128"]),
        ({"fp16": {"enabled": True, "los_scale": 0}}, Wanted(2, precision="fp16"), ["los_scale", "'loss_scale'"]),
        ({"data_types": {"grad_accum_dtype": "bf16"}}, TWO, ["grad_accum_dtype", "fp32"]),
        ({"optimizer": {"type": "Adam"}}, TWO, ["optimizer is 'Adam'", "rt.setup(optimizer=...)", "drop one"]),
        ({"scheduler": {"type": "WarmupLR"}}, Wanted(2, scheduler=True), ["scheduler is 'WarmupLR'"]),
        ({}, Wanted(2, optimizer=False), ["there is no optimizer", "AdamW"]),
        ({"optimizer": {"type": "Adam", "params": {"lr": "auto"}}}, Wanted(2, optimizer=False), ["lr is 'auto'"]),
        ({"optimizer": {"params": {}}}, Wanted(2, optimizer=False), ["optimizer.type is None"]),
        ({"train_batch_size": 10, "train_micro_batch_size_per_gpu": 2, "gradient_accumulation_steps": 2}, TWO,
         ["train_batch_size is 10", "= 8"]),
        ({"train_batch_size": 10, "train_micro_batch_size_per_gpu": 4}, TWO, ["does not divide"]),
        ({"optimizer": {"type": "Lamb"}}, Wanted(2, optimizer=False), ["'Lamb'", "whole parameters", "use stage 0"]),
        ({"train_batch_size": 7}, TWO, ["train_batch_size is 7", "2 ranks"]),
        ({"train_batch_size": -2}, TWO, ["positive integer"]),
        ({"gradient_clipping": "much"}, TWO, ["gradient_clipping is 'much'"]),
    ],
)  # fmt: skip
def test_contradictions_are_named(config: dict[str, Any], wanted: Wanted, words: list[str]) -> None:
    said = refused(config, wanted)
    for word in words:
        assert word in said


@pytest.mark.parametrize("key", sorted(REFUSED))
def test_what_the_engine_cannot_do_is_refused_by_name(key: str) -> None:
    said = refused({key: {"enabled": True}})
    assert repr(key) in said
    assert REFUSED[key] in said
    merge({key: {"enabled": False}}, TWO)
    merge({key: "auto"}, TWO)


def test_keys_without_effect_are_told() -> None:
    made = merge(
        {"fp16": {"hysteresis": 2, "min_loss_scale": 1}, "wall_clock_breakdown": True}, Wanted(2, precision="fp16")
    )
    made_of_steps = merge({"gradient_accumulation_steps": 4}, TWO)
    assert "gradient_accumulation_steps=4: the script accumulates" in made_of_steps.ignored[0]
    assert merge({"gradient_accumulation_steps": 1}, TWO).ignored == ()
    told = " ".join(made.ignored)
    assert all(key in told for key in ("fp16.hysteresis", "fp16.min_loss_scale", "wall_clock_breakdown"))
    assert "wall_clock_breakdown" not in made.config


@given(micro=st.integers(1, 9), steps=st.integers(1, 9), ranks=st.integers(1, 9), extra=st.integers(0, 9))
def test_the_three_batch_sizes(micro: int, steps: int, ranks: int, extra: int) -> None:
    sizes = {"train_micro_batch_size_per_gpu": micro, "gradient_accumulation_steps": steps}
    total = micro * steps * ranks + extra
    if extra:
        assert f"= {micro * steps * ranks}" in refused({**sizes, "train_batch_size": total}, Wanted(ranks))
    else:
        assert (
            merge({**sizes, "train_batch_size": total}, Wanted(ranks)).config["train_micro_batch_size_per_gpu"] == micro
        )


def test_reading_a_file(tmp_path: Path) -> None:
    path = tmp_path / "ds.json"
    path.write_text('{"gradient_clipping": 1.0}')
    assert read_config(path) == read_config(str(path)) == read_config({"gradient_clipping": 1.0})
    assert read_config(None) == {}
    path.write_text("[1]")
    with pytest.raises(ConfigError, match="not a JSON object"):
        read_config(path)
    path.write_text("{")
    with pytest.raises(ConfigError, match="not JSON"):
        read_config(path)
    with pytest.raises(ConfigError, match="cannot read"):
        read_config(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"stage": 4}, "stage=4"),
        ({"stage": "2"}, "stage='2'"),
        ({"stage": 2.0}, "stage=2.0"),
        ({"offload": "disk"}, "offload='disk'"),
        ({"config": 5}, "config=5"),
        ({"config": [1]}, "config="),
    ],
)
def test_options(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        dtk.DeepSpeed(**options)


def test_a_launcher_is_needed() -> None:
    with dtk.init(env={}) as rt, pytest.raises(ConfigError, match="dtk launch"):
        rt.setup(lambda: None, strategy="deepspeed")
