"""A first save, where nothing was restored, into a directory that holds the run of another model."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import dist_toolkit as dtk
from dist_toolkit.errors import StateMismatch

ADAM = partial(torch.optim.Adam, lr=0.1)


def there() -> list[str]:
    return sorted(path.name for path in Path("ckpt").glob("step-*"))


def step(engine: Any, width: int) -> None:
    engine.backward(engine(torch.ones(2, width)).mean())
    engine.step()


@pytest.fixture
def first(rt: Any) -> None:
    """Another run: a linear layer, saved at step 5 with the state of its optimizer."""
    engine = rt.setup(partial(nn.Linear, 4, 2), ADAM)
    step(engine, 4)
    ckpt = rt.checkpointer("ckpt", engine=engine)
    ckpt.save(5)
    ckpt.close()


def saved(rt: Any, model: Any, **options: Any) -> Any:
    ckpt = rt.checkpointer("ckpt", engine=rt.setup(model, ADAM), keep_last=1, **options)
    try:
        ckpt.save(9)
    finally:
        ckpt.close()
    return ckpt


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (lambda: nn.Sequential(nn.Linear(4, 2)), "lacks model.0.bias, model.0.weight and has besides model.bias, "),
        (partial(nn.Linear, 8, 2), r"model.weight is torch.float32 of shape \[2, 8\] here, but .* of shape \[2, 4\]"),
        (lambda: nn.Linear(4, 2).bfloat16(), "model.weight is torch.bfloat16"),
        (partial(nn.Linear, 4, 2, bias=False), "has besides model.bias"),
    ],
)
@pytest.mark.usefixtures("first")
def test_another_model_is_refused_and_nothing_is_deleted(rt: Any, model: Any, words: str) -> None:
    with pytest.raises(StateMismatch, match=words) as caught:
        saved(rt, model)
    assert "step-00000005" in str(caught.value)
    assert "save in another directory, or waive=['engine']" in str(caught.value)
    assert there() == ["step-00000005"]
    with pytest.raises(StateMismatch):  # the next save, too
        saved(rt, model)
    assert saved(rt, model, waive=["engine"]).step == 9
    assert there() == ["step-00000009"]


@pytest.mark.usefixtures("first")
def test_the_same_model_before_its_first_step_is_not_refused(rt: Any) -> None:
    saved(rt, partial(nn.Linear, 4, 2))  # its optimizer has no state yet
    assert there() == ["step-00000009"]


@pytest.mark.usefixtures("first")
def test_the_loop_was_refused_already(rt: Any) -> None:
    ckpt = rt.checkpointer("ckpt", engine=rt.setup(partial(nn.Linear, 8, 2), ADAM))
    with pytest.raises(StateMismatch, match=r"model\.weight is"):
        ckpt.restore()
    with pytest.raises(StateMismatch, match=r"model\.weight is"):
        ckpt.save(6)
    assert there() == ["step-00000005"]


@pytest.mark.usefixtures("first")
def test_averages_and_engines_by_name_are_parts_of_the_model(rt: Any) -> None:
    averaged = rt.setup(partial(nn.Linear, 4, 2), ADAM, ema=dtk.EMA(decay=0.9))
    ckpt = rt.checkpointer("ckpt", engine=averaged)
    with pytest.raises(StateMismatch, match=r"holds no state of 'ema'; .* waive=\['ema'\]"):
        ckpt.save(6)
    ckpt.close()
    two = {name: rt.setup(partial(nn.Linear, 4, 2), ADAM) for name in ("gen", "disc")}
    ckpt = rt.checkpointer("ckpt", engine=two)
    with pytest.raises(StateMismatch, match=r"holds no state of 'gen'; .* waive=\['gen'\]"):
        ckpt.save(6)
    assert there() == ["step-00000005"]


@pytest.mark.usefixtures("first")
def test_going_back_by_choice_lifts_it(rt: Any) -> None:
    engine = rt.setup(partial(nn.Linear, 4, 2), ADAM)
    ckpt = rt.checkpointer("ckpt", engine=engine)
    assert ckpt.restore(step=5) == 5
    ckpt.save(6)
    assert there() == ["step-00000005", "step-00000006"]


def test_a_module_that_is_a_state_is_compared_and_what_may_grow_is_not(rt: Any) -> None:
    class History:
        def __init__(self, length: int) -> None:
            self.held = torch.zeros(length)

        def state_dict(self) -> dict[str, Any]:
            return {"losses": self.held}

        def load_state_dict(self, state: Any) -> None:
            self.held = state["losses"]

    def save(step: int, **state: Any) -> None:
        ckpt = rt.checkpointer("ckpt", state=state)
        try:
            ckpt.save(step)
        finally:
            ckpt.close()

    save(1, net=nn.Linear(4, 2), history=History(3))
    save(2, net=nn.Linear(4, 2), history=History(7))
    with pytest.raises(StateMismatch, match=r"net.weight is .* another directory, or waive=\['net'\]"):
        save(3, net=nn.Linear(8, 2), history=History(7))
    with pytest.raises(StateMismatch, match="holds no state of 'other'"):
        save(3, other=nn.Linear(4, 2))
    assert there() == ["step-00000001", "step-00000002"]
