"""The batches of a loader with numbers of their own: the same from any place of the epoch on, in any worker."""

import random

import pytest
import torch
from torch.utils.data import DataLoader, WeightedRandomSampler

from dist_toolkit.integrations.trainer_data import NumberedBatches, give_batches_their_numbers


class Draws:
    """Each sample is drawn anew each time."""

    def __len__(self):
        return 12

    def __getitem__(self, index):
        return index, random.random(), float(torch.rand(()))


def collate(samples):
    return [*samples, random.random()]


def loader(workers=0, rank=0, epoch=0):
    made = DataLoader(
        Draws(), batch_size=2, sampler=WeightedRandomSampler([1.0] * 12, 12), collate_fn=collate, num_workers=workers
    )
    assert give_batches_their_numbers(made, 7, rank)
    made.batch_sampler.set_epoch(epoch)
    return made


def test_they_do_not_depend_on_what_was_drawn_before():
    first = list(loader())
    random.seed(99)
    torch.manual_seed(99)
    assert list(loader()) == first
    assert list(loader(epoch=1)) != first
    drawn = [batch[0][1] for batch in first]
    assert len(set(drawn)) == len(drawn)


def test_workers_draw_the_same():
    assert list(loader(workers=2)) == list(loader())


def test_ranks_have_one_order_and_numbers_of_their_own():
    ours, theirs = list(loader()), list(loader(rank=1))
    assert [[s[0] for s in batch[:-1]] for batch in ours] == [[s[0] for s in batch[:-1]] for batch in theirs]
    assert ours != theirs


def test_generators_stay_as_they_were():
    made = loader()
    states = random.getstate()
    for _ in made:
        assert random.getstate() == states


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_the_epoch_reaches_every_sampler(depth):
    class Sampler(list):
        epoch = 0

        def set_epoch(self, epoch):
            self.epoch = epoch

    class Wrapper(list):
        pass

    innermost = found = Sampler([[1]])
    for level in range(depth):
        wrapper = Wrapper([[1]])
        setattr(wrapper, "sampler" if level == 0 else "batch_sampler", found)
        found = wrapper
    NumberedBatches(found, 0, 0).set_epoch(4)
    assert innermost.epoch == 4


def test_a_stream_is_left_alone():
    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            yield from range(3)

    assert not give_batches_their_numbers(DataLoader(Stream(), batch_size=1), 0, 0)
