"""A loop with Accelerate, as people write it: the strategy is nobody's business in here."""

import argparse
import json

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs
from torch.utils.data import DataLoader, TensorDataset


class Tagger(torch.nn.Module):
    """Letters to one of two classes."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(64, 32)
        self.body = torch.nn.Sequential(torch.nn.Linear(32, 32), torch.nn.Tanh(), torch.nn.Linear(32, 2))

    def forward(self, letters: torch.Tensor) -> torch.Tensor:
        return self.body(self.embedding(letters).mean(1))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--backend", help="of torch.distributed; on CPUs Accelerate needs it for DeepSpeed")
    backend = parser.parse_args().backend
    accelerator = Accelerator(kwargs_handlers=[InitProcessGroupKwargs(backend=backend)] if backend else None)
    torch.manual_seed(0)
    model = Tagger()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    letters = torch.randint(0, 64, (64, 8))
    loader = DataLoader(TensorDataset(letters, letters[:, 0] % 2), batch_size=8, shuffle=True)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    computed = set()
    accelerator.unwrap_model(model).body[0].register_forward_hook(
        lambda module, args, output: computed.add(str(output.dtype))
    )
    steps = 0
    for inputs, labels in loader:
        with accelerator.accumulate(model):
            accelerator.backward(F.cross_entropy(model(inputs).float(), labels))
            optimizer.step()
            optimizer.zero_grad()
        steps += 1
    report(model, computed, steps, accelerator.num_processes)
    accelerator.end_training()


def report(model: torch.nn.Module, computed: set[str], steps: int, ranks: int) -> None:
    """What is in force, for the test that runs this."""
    own = getattr(model, "module", model)
    seen = {
        "model": [kind.__name__ for kind in type(model).__mro__],
        "parameters": sorted({type(parameter).__name__ for parameter in own.parameters()}),
        "stage": model.zero_optimization_stage() if hasattr(model, "zero_optimization_stage") else None,
        "computed in": sorted(computed),
        "steps": steps,
        "ranks": ranks,
    }
    print("@" + json.dumps(seen))


if __name__ == "__main__":
    main()
