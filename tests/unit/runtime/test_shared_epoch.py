"""A Hugging Face stream's epoch lies in memory that workers share; a reader must not write to it."""

from __future__ import annotations

from typing import Any

import pytest

from dist_toolkit.data.streams import Reading, StreamDataset, StreamRequest

datasets = pytest.importorskip("datasets")


def read(stream: Any, slot: int, epoch: int) -> list[int]:
    dataset = StreamDataset(stream, Reading("workers", 0, 1, 0, False, True))
    return [item["n"] for item in dataset.__getitems__([StreamRequest(epoch, epoch, slot, 2, 0, 8)])]


def test_readers_of_one_epoch_do_not_disturb_each_other() -> None:
    table = datasets.Dataset.from_dict({"n": list(range(16))})
    stream = table.to_iterable_dataset(num_shards=2).shuffle(seed=3, buffer_size=1)
    orders = []
    for epoch in range(6):
        two = [read(stream, slot, epoch) for slot in (0, 1)]
        assert sorted(two[0] + two[1]) == list(range(16))
        assert int(stream.epoch) == 0, "the number that other workers see"
        orders.append(two)
    assert any(order != orders[0] for order in orders), "shards are drawn anew"
