"""A loop with Lightning Fabric, as people write it for torchrun: the strategy is nobody's business in here."""

import json

import torch
import torch.nn.functional as F
from lightning.fabric import Fabric
from torch.utils.data import DataLoader, TensorDataset


def main() -> None:
    fabric = Fabric()
    fabric.launch()
    fabric.seed_everything(0, verbose=False)
    model = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.Tanh(), torch.nn.Linear(32, 2))
    model, optimizer = fabric.setup(model, torch.optim.AdamW(model.parameters(), lr=1e-2))
    inputs = torch.randn(64, 8)
    loader = fabric.setup_dataloaders(DataLoader(TensorDataset(inputs, (inputs.sum(1) > 0).long()), batch_size=8))
    computed = set()
    model.module[0].register_forward_hook(lambda module, args, output: computed.add(str(output.dtype)))
    steps = 0
    for batch, labels in loader:
        fabric.backward(F.cross_entropy(model(batch), labels))
        optimizer.step()
        optimizer.zero_grad()
        steps += 1
    seen = {
        "model": [kind.__name__ for kind in type(model._forward_module).__mro__],
        "strategy": type(fabric.strategy).__name__,
        "computed in": sorted(computed),
        "steps": steps,
        "ranks": fabric.world_size,
    }
    print("@" + json.dumps(seen))


if __name__ == "__main__":
    main()
