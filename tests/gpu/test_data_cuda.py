"""On a GPU: batches that come over a side stream, one ahead. Skipped without one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.data import TensorDataset

from dist_toolkit.data import Choices, Place, build_loader
from dist_toolkit.world import World

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]

CUDA = torch.device("cuda", 0)


def loader_of(data: torch.Tensor, batch: int, workers: int = 0) -> Any:
    dataset = TensorDataset(torch.arange(len(data)), data)
    choices = Choices(batch, shuffle=False, drop_last=False)
    return build_loader(dataset, Place(World(), CUDA, 1), choices, {"num_workers": workers})


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_arrive_whole_while_the_gpu_is_busy(workers: int) -> None:
    """Long kernels on the main stream, each batch overwritten after use: a copy that did not wait, or memory that was
    given away too early, would show."""
    data = torch.randn(64, 250_000, generator=torch.Generator().manual_seed(0))
    weights = torch.randn(4096, 4096, device=CUDA)
    loader = loader_of(data, 8, workers)
    sums = []
    for numbers, rows in loader:
        assert rows.device == CUDA
        for _ in range(10):
            weights = torch.tanh(weights @ weights)
        sums.append((numbers.clone(), rows.double().sum(1)))
        rows.fill_(float("nan"))
        del rows
    loader.close()
    found = torch.cat([total for _, total in sums]).cpu()
    assert torch.cat([numbers for numbers, _ in sums]).tolist() == list(range(64))
    torch.testing.assert_close(found, data.double().sum(1))


def test_a_batch_that_was_copied_ahead_comes_again_after_a_resume() -> None:
    data = torch.arange(20.0)[:, None]
    loader = loader_of(data, 4)
    batches = iter(loader)
    next(batches), next(batches)
    again = loader_of(data, 4)
    again.load_state_dict(loader.state_dict())
    assert next(iter(again))[0].tolist() == [8, 9, 10, 11]


def test_tensors_in_a_nest_arrive_too() -> None:
    """Dicts, lists and plain values in a batch."""
    rows = [{"x": torch.full((2,), float(n)), "name": str(n), "pair": (n, [torch.tensor(n)])} for n in range(6)]
    place = Place(World(), CUDA, 1)
    for batch in build_loader(rows, place, Choices(3, train=False), {}):
        assert batch["x"].device == batch["pair"][1][0].device == CUDA
        assert batch["x"][:, 0].tolist() == batch["pair"][0].tolist()
        assert batch["name"] == [str(n) for n in batch["pair"][0].tolist()]
