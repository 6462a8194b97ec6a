"""Micro-batches, retention, names, lazy imports."""

from __future__ import annotations

import logging
import subprocess
import sys
from typing import NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import dist_toolkit
from dist_toolkit.checkpoint.catalog import Committed
from dist_toolkit.checkpoint.manifest import Manifest
from dist_toolkit.checkpoint.retention import Retention, retention_from
from dist_toolkit.errors import ConfigError
from dist_toolkit.strategies.micro_batches import split_batch
from dist_toolkit.strategies.request import BatchWeight
from dist_toolkit.strategies.state import strip_wrappers


class Pair(NamedTuple):
    x: torch.Tensor
    y: torch.Tensor


@given(size=st.integers(1, 40), count=st.integers(1, 50))
def test_micro_batches_are_the_batch_and_their_shares_are_one(size: int, count: int) -> None:
    batch = {"pair": Pair(torch.arange(size), torch.arange(size) * 2), "list": [torch.arange(size)], "name": "n"}
    if count > size:
        with pytest.raises(ConfigError, match=f"pass at most {size}"):
            split_batch(batch, count)
    pieces = split_batch(batch, count, fill=True)
    assert len(pieces) == count
    real = [piece["pair"].x for piece, share in pieces if share > 0]
    assert torch.cat(real).tolist() == list(range(size))
    assert all(isinstance(piece["pair"], Pair) and piece["name"] == "n" for piece, _ in pieces)
    assert sum(share for _, share in pieces) == pytest.approx(1)
    assert all(share in (0, len(piece["list"][0]) / size) for piece, share in pieces)


def test_names_beside_tensors_are_split_with_them() -> None:
    batch = {
        "x": torch.arange(5),
        "names": ["a", "b", "c", "d", "e"],
        "pair": ("one", "two"),
        "many": [torch.arange(5)] * 5,
    }
    (one, _), (two, share) = split_batch(batch, 2)
    assert (one["names"], two["names"]) == (["a", "b"], ["c", "d", "e"])
    assert two["pair"] == ("one", "two")
    assert [piece.tolist() for piece in two["many"]] == [[2, 3, 4]] * 5
    assert share == pytest.approx(0.6)


def test_the_weight_of_a_batch_ends_with_its_loop() -> None:
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    weight = BatchWeight()
    for value in (1.0, 1.0, 0.0):
        weight.handed_out(1, value)
    assert weight.value == 0.0
    assert weight.real(2) == [True, False]
    assert weight.real(4) == [True] * 4, "more than are known: batches of the script's own"
    weight.ended(1)
    assert weight.value == 1.0
    logging.getLogger("dist_toolkit").addHandler(handler)
    try:
        for loader, value in ((1, 1.0), (2, 1.0), (2, 1.5), (1, 1.0), (2, 0.5)):
            weight.handed_out(loader, value)
    finally:
        logging.getLogger("dist_toolkit").removeHandler(handler)
    assert [words.partition(":")[0] for words in said] == [
        "two training loaders are in use, and their batches are shared unequally"
    ]


@pytest.mark.parametrize(
    ("batch", "count", "words"),
    [
        (torch.ones(4), 0, "at least 1"),
        ({"text": "x"}, 2, "holds no tensor"),
        ((torch.ones(4), torch.ones(3)), 2, r"tensors of \[3, 4\] samples"),
    ],
)
def test_batches_that_cannot_be_split(batch: object, count: int, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        split_batch(batch, count)


def committed(step: int, score: float | None) -> Committed:
    metrics = {} if score is None else {"score": score}
    return Committed(f"step-{step:08d}", step, b"", Manifest(step, 1, "", "", {}, {}, {}, metrics))


@given(
    scores=st.lists(st.none() | st.integers(0, 5).map(float), min_size=1, max_size=10),
    keep=st.none() | st.integers(1, 4), best=st.sampled_from([None, "max:score", "min:score"]),
)  # fmt: skip
def test_retention_never_gives_up_the_newest_nor_the_best(
    scores: list[float | None], keep: int | None, best: str | None
) -> None:
    found = [committed(step, score) for step, score in enumerate(scores)][::-1]
    surplus = {c.step for c in retention_from(keep, best).surplus(found)}
    kept = {c.step for c in found} - surplus
    assert kept >= {c.step for c in found[: keep or len(found)]}
    known = [score for score in scores if score is not None]
    if best and known:
        wanted = min(known) if best.startswith("min") else max(known)
        assert wanted in {scores[step] for step in kept}
    if keep:
        assert len(kept) <= keep + (best is not None)


def test_retention_that_makes_no_sense() -> None:
    with pytest.raises(ConfigError, match="write max:METRIC or min:METRIC"):
        retention_from(1, "best:loss")
    assert Retention(keep_last=1).surplus([]) == []


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("_orig_mod.body.0.weight", "body.0.weight"),
        ("body._orig_mod.0._checkpoint_wrapped_module.weight", "body.0.weight"),
        ("module.weight", "module.weight"),  # a user's own `module`
    ],
)
def test_wrappers_are_stripped_from_names(name: str, own: str) -> None:
    assert strip_wrappers(name) == own


def test_public_names_are_these() -> None:
    assert sorted(dist_toolkit.__all__) == [
        "Checkpointer", "DDP", "DataParallel", "DeepSpeed", "DesyncError", "DistToolkitError", "EMA", "Engine", "FSDP",
        "GlobalOrder", "Loader", "PeerError", "Preempted", "Runtime", "Single", "World", "init", "sync_batchnorm",
    ]  # fmt: skip
    assert all(getattr(dist_toolkit, name) is not None for name in dist_toolkit.__all__)
    with pytest.raises(AttributeError, match="no attribute 'initialise'"):
        dist_toolkit.initialise  # noqa: B018


def test_parts_without_torch_start_without_torch() -> None:
    code = """
import sys
import dist_toolkit, dist_toolkit.world, dist_toolkit.errors
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
