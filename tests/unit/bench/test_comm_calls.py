"""Whether a result is right, by made-up collectives of two ranks."""

import pytest
import torch
from comm_parts import calls
from comm_parts.calls import Buffers, Members, is_right

COUNT = 12


def of_both(operation, right=True):
    """What the operation would leave in the buffers of rank 1 of two."""

    def make(name, buffers, elements, members):
        assert name == operation
        numbers = torch.arange(elements)
        first, second = numbers % 3, (numbers + 1) % 3
        part = elements // 2

        def call():
            if operation == "all-reduce":
                buffers.source[:elements] = first + second
            elif operation == "broadcast":
                buffers.source[:elements] = first
            elif operation == "all-gather":
                buffers.target[:elements] = torch.cat([first[:part], second[:part]])
            else:
                buffers.target[:part] = (first + second)[part:]
            if not right:
                buffers.source[part - 1] += 1
                buffers.target[part - 1] += 1

        return call

    return make


@pytest.mark.parametrize("operation", ["all-reduce", "all-gather", "reduce-scatter", "broadcast"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("right", [True, False])
def test_a_result_is_compared_to_the_last_number(monkeypatch, operation, dtype, right):
    monkeypatch.setattr(calls, "make_call", of_both(operation, right))
    buffers = Buffers(COUNT + 5, dtype, torch.device("cpu"))
    assert is_right(operation, buffers, COUNT, Members(None, 0, 1, 2)) is right
    assert not buffers.source.any(), "what is added up over and over has to stay finite"


@pytest.mark.parametrize("operation", ["all-reduce", "all-gather", "reduce-scatter", "broadcast"])
def test_an_operation_that_does_nothing_is_not_right(monkeypatch, operation):
    monkeypatch.setattr(calls, "make_call", lambda *_: lambda: None)
    buffers = Buffers(COUNT, torch.float32, torch.device("cpu"))
    assert not is_right(operation, buffers, COUNT, Members(None, 0, 1, 2))
