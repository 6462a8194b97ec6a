"""Which modules FSDP takes as units, and what its options refuse; no process group is needed for either."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import dist_toolkit as dtk
from dist_toolkit.errors import ConfigError
from dist_toolkit.strategies.fsdp_wrap import find_units
from dist_toolkit.world import World


class Block(nn.Module):
    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.layers(x)


class Whole(nn.Module):
    def __init__(self, blocks: list[nn.Module]) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        for block in self.blocks:
            x = block(x)
        return x


def names(model: nn.Module, wrap: object) -> list[str]:
    found = {id(unit) for unit in find_units(model, wrap)}
    return [name for name, module in model.named_modules() if id(module) in found]


def test_repeated_blocks_are_units_and_plain_layers_are_not() -> None:
    assert names(Whole([Block(), Block(), nn.Linear(4, 4)]), "auto") == ["blocks.0", "blocks.1"]
    assert names(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4)), "auto") == []
    assert names(nn.Sequential(nn.Sequential(Block(), Block()), nn.Sequential(Block(), Block())), "auto") == [
        "0.0",
        "0.1",
        "1.0",
        "1.1",
    ]
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, 8), 1, enable_nested_tensor=False)
    assert names(encoder, "auto") == ["layers.0"]


def test_a_model_can_name_its_own_units() -> None:
    model = Whole([Block(), Block()])
    model._no_split_modules = ["Sequential"]  # as in Hugging Face's models
    assert names(model, "auto") == ["blocks.0.layers", "blocks.1.layers"]


def test_classes_and_sizes() -> None:
    model = Whole([Block(), Block()])
    assert names(model, Block) == names(model, ("Block",)) == names(model, [Block]) == ["blocks.0", "blocks.1"]
    assert names(model, 40) == ["blocks.0.layers", "blocks.1.layers"]
    assert names(model, 20) == ["first", *(f"blocks.{b}.layers.{n}" for b in (0, 1) for n in (0, 2))]
    units = find_units(model, ("Block", nn.Linear))
    assert units.index(model.blocks[0]) > units.index(model.blocks[0].layers[2])  # inner ones first


def test_a_module_that_shares_a_parameter_with_one_outside_is_no_unit() -> None:
    model = Whole([Block(), Block(), Block()])
    model.blocks[1].layers[0].weight = model.first.weight
    assert names(model, "auto") == ["blocks.0", "blocks.2"]
    inside = Whole([Block(), Block()])
    inside.blocks[1].layers[0].weight = inside.blocks[1].layers[2].weight
    assert names(inside, "auto") == ["blocks.0", "blocks.1"]
    shared = Whole([Block(), Block()])
    shared.first = shared.blocks[0].layers[0]
    assert names(shared, "auto") == ["blocks.1"]


@given(st.lists(st.integers(1, 6), max_size=4), st.integers(1, 200))
def test_by_size_every_unit_is_large_enough_without_those_in_it(widths: list[int], least: int) -> None:
    model = Whole([Block(width) for width in widths])
    taken: set[int] = set()
    for unit in find_units(model, least):
        free = {id(p): p.numel() for p in unit.parameters() if id(p) not in taken}
        assert sum(free.values()) >= least
        taken |= set(free)


def test_options_are_checked_before_anything_is_started() -> None:
    def world(size: int) -> World:
        return World.from_env({"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size)})

    for options, words in [
        ({"wrap": 0}, "not a positive number"),
        ({"wrap": 1.5}, "is not 'auto'"),
        ({"wrap": (int,)}, "is not 'auto'"),
        ({"replicas": 0}, "not a positive number"),
        ({"replicas": "2"}, "replicas='2'"),
        ({"replicas": True}, "replicas=True"),
        ({"reshard_after_forward": "2"}, "not True, False or a number"),
        ({"cpu_offload": "no"}, "cpu_offload='no'"),
        ({"reduce_once": 1}, "reduce_once=1"),
        ({"compile": 3}, "compile=3"),
        ({"reduce_dtype": "fp8"}, "known: fp32, bf16, fp16"),
        ({"init": "zero"}, "known: rank0, full, meta"),
    ]:
        with pytest.raises(ConfigError, match=words):
            dtk.FSDP(**options)
    with pytest.raises(ConfigError, match="needs a process group"):
        dtk.FSDP().check(World.from_env({}))
    with pytest.raises(ConfigError, match="does not divide the 4 ranks"):
        dtk.FSDP(replicas=3).check(world(4))
    with pytest.raises(ConfigError, match="does not divide the 2 ranks that share"):
        dtk.FSDP(replicas=2, reshard_after_forward=4).check(world(4))
    dtk.FSDP(replicas=2, reshard_after_forward=2).check(world(4))
