"""What may be in a state_dict, and what comes back."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dist_toolkit.checkpoint.canonical import flatten, tensor_keys, unflatten
from dist_toolkit.errors import NotSerializable

names = st.text(max_size=5)
leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | names
states = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(names | st.integers(), inner, max_size=3)
        | st.dictionaries(st.sampled_from(["$tensor", "$tuple", "$dict", "$float"]), inner, max_size=2)
    ),
    max_leaves=12,
)


@given(states)
def test_what_goes_in_comes_out(state: Any) -> None:
    import json

    tensors, skeleton = flatten("s", state)
    assert unflatten(json.loads(json.dumps(skeleton)), tensors) == state
    assert tensors == {}


def test_tensors_are_taken_out_by_path() -> None:
    a, b = torch.ones(2), torch.zeros(())
    tensors, skeleton = flatten("ema", {"shadow": {"w": a}, "list": [b], "decay": 0.9})
    assert set(tensors) == {"ema.shadow.w", "ema.list.0"} == tensor_keys(skeleton)
    back = unflatten(skeleton, tensors)
    assert back["decay"] == 0.9
    assert back["shadow"]["w"].data_ptr() == a.data_ptr()


def test_infinities_and_nan_survive() -> None:
    _, skeleton = flatten("s", [float("inf"), -float("inf"), float("nan")])
    plus, minus, nan = unflatten(skeleton, {})
    assert (plus, minus) == (float("inf"), -float("inf"))
    assert nan != nan


def test_what_would_need_pickle_is_named() -> None:
    with pytest.raises(NotSerializable, match=r"state 's.hooks.1' is a function"):
        flatten("s", {"hooks": [1, lambda: None]})
    with pytest.raises(NotSerializable, match=r"'s\.a\.b'"):
        flatten("s", {"a": {"b": torch.ones(1)}, "a.b": torch.ones(1)})
    with pytest.raises(NotSerializable):
        flatten("s", {(1, 2): 3})
