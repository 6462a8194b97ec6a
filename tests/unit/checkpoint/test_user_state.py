"""What a user hands to a checkpointer: names, values that cannot be stored, metrics, and how the loop is left."""

from __future__ import annotations

import json
import logging
import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset

from dist_toolkit.checkpoint.manifest import digest
from dist_toolkit.checkpoint.retention import retention_from
from dist_toolkit.errors import (
    AllCheckpointsCorrupt,
    CheckpointError,
    CheckpointNotFound,
    ConfigError,
    NotSerializable,
    PeerError,
)


class Box:
    """An object whose state is `value`."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def state_dict(self) -> Any:
        return self.value

    def load_state_dict(self, state: Any) -> None:
        self.value = state


def train(rt: Any, **options: Any) -> tuple[Any, Any, Any]:
    engine = rt.setup(partial(torch.nn.Linear, 2, 1), partial(torch.optim.Adam, lr=0.1))
    loader = rt.loader(TensorDataset(torch.ones(40, 2)), global_batch_size=4)
    return engine, loader, rt.checkpointer("ckpt", engine=engine, loader=loader, **options)


def step(engine: Any, x: torch.Tensor) -> None:
    engine.backward(engine(x).mean())
    engine.step()


@pytest.mark.parametrize("name", ["optim.weight", "model.ema", "rng.0", "a.b", "", 1])
def test_a_name_that_could_be_a_tensors_is_refused(rt: Any, name: Any) -> None:
    with pytest.raises(ConfigError, match="without dots"):
        train(rt, state={name: Box({"exp_avg": torch.ones(2)})})


HELD: dict[str, Any] = {"me": None}
HELD["me"] = HELD


@pytest.mark.parametrize(
    ("value", "key", "words"),
    [
        ({"n": [10**5000]}, "box.n.0", "16610 bits"),
        (HELD, "box.me.me", "levels deep"),
        ({"t": torch.ones(2, device="meta")}, "box.t", "without data"),
        ({"t": torch.ones(2, dtype=torch.complex64).conj()}, "box.t", "conjugate"),
        ({"a.b": torch.ones(1), "a": {"b": torch.ones(1)}}, "box.a.b", "name of another"),
        ({"f": lambda: None}, "box.f", "function"),
    ],
)
def test_what_cannot_be_stored_is_named(rt: Any, value: Any, key: str, words: str) -> None:
    _, _, ckpt = train(rt, state={"box": Box(value)})
    with pytest.raises(NotSerializable, match=words) as caught:
        ckpt.save(1)
    assert caught.value.key.startswith(key)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors is in prototype stage")
@pytest.mark.parametrize("layout", [torch.strided, torch.jagged])
def test_a_nested_tensor_is_named(rt: Any, layout: torch.layout) -> None:
    nested = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=layout)
    _, _, ckpt = train(rt, state={"box": Box({"t": [nested]})})
    with pytest.raises(NotSerializable, match="dense tensors") as caught:
        ckpt.save(1)
    assert caught.value.key == "box.t.0"


def test_numbers_that_are_not_finite_come_back(rt: Any) -> None:
    box = Box({"best": np.float64("nan"), "worst": np.float64("-inf")})
    _, _, ckpt = train(rt, state={"box": box})
    ckpt.save(1)
    box.value = None
    ckpt.restore()
    assert np.isnan(box.value["best"])
    assert box.value["worst"] == -np.inf


def test_steps_goes_on_from_what_was_restored(rt: Any) -> None:
    engine, loader, ckpt = train(rt, every=2)
    assert [n for n, (x,) in ckpt.steps(loader, until=6) if step(engine, x) is None] == [1, 2, 3, 4, 5, 6]
    with pytest.raises(CheckpointNotFound, match=r"no committed checkpoint of step 3 in .*ckpt; there are 6, 4, 2$"):
        ckpt.restore(step=3)
    assert ckpt.restore(step=2) == 2
    assert next(n for n, _ in ckpt.steps(loader, until=6)) == 3
    _, other, again = train(rt)
    assert next(n for n, _ in again.steps(other, until=9)) == 7


def test_a_second_loop_keeps_what_was_changed_in_between(rt: Any) -> None:
    engine, loader, ckpt = train(rt)
    for _, (x,) in ckpt.steps(loader, until=2):
        step(engine, x)
    engine.optimizer.param_groups[0]["lr"] = 0.5
    for _, (x,) in ckpt.steps(loader, until=4):
        step(engine, x)
    assert engine.optimizer.param_groups[0]["lr"] == 0.5
    assert ckpt.step == 4


def test_a_loop_that_is_left_says_what_is_unsaved(rt: Any, caplog: pytest.LogCaptureFixture) -> None:
    engine, loader, ckpt = train(rt)
    logging.getLogger("dist_toolkit").addHandler(caplog.handler)
    for number, (x,) in ckpt.steps(loader, until=9):
        step(engine, x)
        if number == 3:
            break
    assert "left at step 3, which is not saved; call save()" in caplog.text
    ckpt.save()
    assert Path("ckpt/step-00000003").exists()


def test_another_format_is_neither_passed_over_nor_replaced(rt: Any) -> None:
    _, _, ckpt = train(rt)
    ckpt.save(1)
    ckpt.save(2)
    record = Path("ckpt/step-00000002/manifest.json")
    body = json.dumps({**json.loads(record.read_text())["body"], "format": 2})
    newer = f'{{"format": 2, "digest": "xxh3_128:{digest(body.encode())}", "body": {body}}}\n'
    record.write_text(newer)
    _, _, other = train(rt)
    with pytest.raises(PeerError, match=r"checkpoint format 2.*update dist-toolkit"):
        other.restore()
    with pytest.raises(PeerError, match="checkpoint format 2"):
        next(other.steps(rt.loader(TensorDataset(torch.ones(8, 2)), global_batch_size=4), until=3))
    ckpt.close()
    for _ in range(2):
        with pytest.raises(CheckpointError, match="checkpoint format 2"):
            other.save(2)
        assert record.read_text() == newer
        assert other.restore(step=1) == 1  # by choice; what is saved then would replace it, or set it aside
    record.write_text(newer.replace('{"format": 2', '{"format": 1', 1))
    assert other.restore() == 1  # two numbers that do not agree: damage


def test_a_save_by_number_is_where_the_next_one_goes_on(rt: Any) -> None:
    engine, _, ckpt = train(rt)
    ckpt.save(3)
    engine.step()
    ckpt.save(6)
    ckpt.save()
    assert sorted(path.name for path in Path("ckpt").glob("step-*")) == ["step-00000003", "step-00000006"]


def test_what_was_reported_goes_with_the_state(rt: Any) -> None:
    _, _, ckpt = train(rt)
    ckpt.report(loss=0.5)
    ckpt.save(1)
    ckpt.report(loss=0.1)
    ckpt.restore()
    ckpt.save(2)
    record = json.loads(Path("ckpt/step-00000002/manifest.json").read_text())
    assert record["body"]["metrics"] == {}


@pytest.mark.parametrize(
    ("root", "parent"),
    [
        ("ckpt/step-00000010", ".*/ckpt$"),
        (Path("ckpt/step-00000010.aside/"), ".*/ckpt$"),
        ("memory://b/step-00000010", "memory://b$"),
    ],
)
def test_one_checkpoint_is_no_place_for_a_run(rt: Any, root: Any, parent: str) -> None:
    with pytest.raises(
        ConfigError, match=f"has the name of one checkpoint; pass the directory that holds it, {parent}"
    ):
        rt.checkpointer(root)


@pytest.mark.parametrize("value", ["x", None, torch.ones(2), [0.5], 10**400])
def test_a_metric_that_is_no_number_is_named(rt: Any, value: Any) -> None:
    _, _, ckpt = train(rt)
    with pytest.raises(ConfigError, match=r"report\(loss=.* is not a number"):
        ckpt.report(accuracy=0.5, loss=value)
    ckpt.save(1)
    record = json.loads(Path("ckpt/step-00000001/manifest.json").read_text())
    assert record["body"]["metrics"] == {}, "all or nothing"


def test_a_damaged_step_that_was_asked_for_is_named_with_those_that_are_there(rt: Any) -> None:
    _, _, ckpt = train(rt)
    for number in (2, 4, 6):
        ckpt.save(number)
    data = Path("ckpt/step-00000004/rank-00000.safetensors")
    data.write_bytes(data.read_bytes()[:-1])
    with pytest.raises(AllCheckpointsCorrupt) as caught:
        ckpt.restore(step=4)
    assert re.search(
        r"^the checkpoint of step 4 in .*ckpt is damaged: step-00000004/rank-00000.safetensors: has \d+ bytes, "
        r"should have \d+; there are 6, 2$",
        str(caught.value),
    )
    assert (caught.value.step, caught.value.there) == (4, (6, 2))
    record = Path("ckpt/step-00000002/manifest.json")
    record.write_bytes(record.read_bytes()[:-9])
    with pytest.raises(AllCheckpointsCorrupt, match=r"step 2 in .* is damaged: .*manifest.json: .*; there are 6, 4$"):
        ckpt.restore(step=2)
    assert ckpt.restore() == 6


@pytest.mark.parametrize("step", ["5", True, 2.0])
def test_a_step_to_go_back_to_is_a_number(rt: Any, step: Any) -> None:
    with pytest.raises(ConfigError, match="not a number of steps"):
        train(rt)[2].restore(step=step)


@pytest.mark.parametrize("metric", ["loss", "max", "max:", "min: loss", "best:loss", 5])
def test_the_best_is_by_a_direction_and_a_name(metric: Any) -> None:
    with pytest.raises(ConfigError, match="write max:METRIC or min:METRIC"):
        retention_from(3, metric)


def test_a_metric_that_is_never_reported_is_said(rt: Any, caplog: pytest.LogCaptureFixture) -> None:
    _, _, ckpt = train(rt, keep_last=1, keep_best="max:accuracy")
    logging.getLogger("dist_toolkit").addHandler(caplog.handler)
    ckpt.save(1)
    assert not caplog.text
    ckpt.save(2)
    assert "'accuracy' was never given to report()" in caplog.text


def test_a_typing_error_in_keep_best_is_said(rt: Any, caplog: pytest.LogCaptureFixture) -> None:
    _, _, ckpt = train(rt, keep_last=1, keep_best="max:accuracy")
    logging.getLogger("dist_toolkit").addHandler(caplog.handler)
    for number in (1, 2, 3):
        ckpt.report(acc=0.5)
        ckpt.save(number)
    assert caplog.text.count("'accuracy' was never given to report(), but 'acc'") == 1


@pytest.mark.parametrize("value", [1.5, True, "3", 0])
def test_keep_last_is_a_number(value: Any) -> None:
    with pytest.raises(ConfigError, match="keep_last="):
        retention_from(value)


def test_who_saved_is_in_the_record(rt: Any) -> None:
    _, _, ckpt = train(rt)
    ckpt.save(1)
    by = json.loads(Path("ckpt/step-00000001/manifest.json").read_text())["body"]["producer"]["by"]
    user, _, host = by.partition("@")
    assert user
    assert host
