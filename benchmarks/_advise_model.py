"""What `dtk bench advise MODEL` measures: a model of the throughput benchmark, trained as any script would."""

import argparse
import itertools
from contextlib import nullcontext

import torch
from throughput_parts.tables import MODELS, SIZES
from throughput_parts.tasks import OPTIMIZERS, factories, samples, step
from torch.utils.data import TensorDataset

import dist_toolkit as dtk
from dist_toolkit.seeding import derive

_BATCHES = 4  # in the synthetic data set


def main() -> None:
    """Train until it is ended."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model", choices=MODELS)
    parser.add_argument("--size", choices=SIZES, required=True)
    parser.add_argument("--batch", type=int, required=True)
    given = parser.parse_args()
    spec = MODELS[given.model]
    size = spec.at(given.size)
    with dtk.init(seed=0) as rt:
        engines = [rt.setup(make, OPTIMIZERS[spec.optimizer]) for make in factories(spec, size)]
        generator = torch.Generator().manual_seed(derive(0, "data"))
        data = TensorDataset(*samples(spec, size, _BATCHES * given.batch, generator))
        loader = rt.loader(data, global_batch_size=given.batch)
        for _ in itertools.count():
            for batch in loader:
                step(spec, size, engines, batch, lambda name: nullcontext(), update=True)


if __name__ == "__main__":
    main()
