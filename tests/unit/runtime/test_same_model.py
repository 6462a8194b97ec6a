"""Descriptions of models, and where those of two ranks differ; ranks compare them in the tests of the strategies."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dist_toolkit.errors import ConfigError
from dist_toolkit.group import SoloGroup
from dist_toolkit.strategies.same_model import check_same, describe, first_difference, together
from dist_toolkit.world import World


def test_a_description_reads_no_values() -> None:
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3, affine=False))
    model[0].bias.requires_grad_(False)
    assert describe(model) == {
        "0.weight": "[3, 2] float32",
        "0.bias": "[3] float32, frozen",
        "1.running_mean": "buffer [3] float32",
        "1.running_var": "buffer [3] float32",
        "1.num_batches_tracked": "buffer [] int64",
    }


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"a": "1", "b": "3"}, "b is 2 on rank 0 and 3 on rank 2"),
        ({"a": "1"}, "rank 2 has no b, which rank 0 has (2)"),
        ({"a": "1", "b": "2", "c": "4"}, "rank 2 has c (4), which rank 0 has not"),
        ({"b": "2", "a": "1"}, "rank 2 has another order from a on"),
    ],
)
def test_the_first_difference(other: dict[str, str], words: str) -> None:
    first = {"a": "1", "b": "2"}
    assert first_difference([first, first, other]) == words


def test_one_process_agrees_with_itself() -> None:
    group = SoloGroup(World.from_env({}), torch.device("cpu"))
    check_same("the model", {"a": 1}, group)
    assert together("adding", lambda: 1 + 1, group) == 2

    def refuse() -> None:
        raise ConfigError("no")

    with pytest.raises(ConfigError, match=r"^no$"):
        together("refusing", refuse, group)
