"""A tiny BERT by the Trainer, with everything that draws random numbers: dropout, shuffling, masking, evaluation.

Beside the options of TrainingArguments: --workers-draw: the data set draws too; --slow SECONDS a step; --log FILE.
"""

import argparse
import hashlib
import json
import os
import random
import time
from pathlib import Path

import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    EarlyStoppingCallback,
    HfArgumentParser,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

from dist_toolkit.integrations.transformers import attach

SIZE = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}


class Words(torch.utils.data.Dataset):
    """Sequences that go up by one; some begin elsewhere each time they are fetched."""

    def __init__(self, count, draws):
        self.count, self.draws = count, draws

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        if index >= self.count:
            raise IndexError(index)
        first = index % 20 + (random.randrange(3) if self.draws else 0)
        return {"input_ids": torch.arange(first, first + 8)}


def mask(samples):
    """Hide some words, chosen anew each time."""
    words = torch.stack([sample["input_ids"] for sample in samples])
    hidden = torch.rand(words.shape) < 0.25
    hidden[:, 0] = True
    return {"input_ids": words.masked_fill(hidden, 31), "labels": words.masked_fill(~hidden, -100)}


class Steps(TrainerCallback):
    """Writes how far this start is, and takes its time."""

    def __init__(self, folder, seconds):
        self.folder, self.seconds = folder, seconds

    def on_step_end(self, args, state, control, **kwargs):
        if state.is_world_process_zero and self.folder:
            Path(self.folder, "step").write_text(f"{state.global_step}")
        time.sleep(self.seconds)


def digest(model):
    """Of all weights, whole."""
    found = hashlib.sha256()
    for name, weight in sorted(model.state_dict().items()):
        whole = weight.full_tensor() if hasattr(weight, "full_tensor") else weight
        found.update(name.encode() + whole.detach().cpu().float().numpy().tobytes())
    return found.hexdigest()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--draws", action="store_true")
    parser.add_argument("--slow", type=float, default=0.0)
    parser.add_argument("--patience", type=int, default=0)
    parser.add_argument("--samples", type=int, default=40)
    own, rest = parser.parse_known_args()
    (args,) = HfArgumentParser(TrainingArguments).parse_args_into_dataclasses(rest)
    set_seed(args.seed)
    config = BertConfig(vocab_size=32, max_position_embeddings=8, **SIZE)
    callbacks = [Steps(os.environ.get("STEP_DIR"), own.slow)]
    if own.patience:
        callbacks.append(EarlyStoppingCallback(own.patience))
    trainer = Trainer(
        BertForMaskedLM(config), args, mask, Words(own.samples, own.draws), Words(10, False), callbacks=callbacks
    )
    attach(trainer)
    result = trainer.train()
    history = [
        {key: value for key, value in line.items() if not key.endswith(("_runtime", "_per_second"))}
        for line in trainer.state.log_history
    ]
    weights = digest(trainer.model)
    if trainer.is_world_process_zero():
        print("@" + json.dumps({"step": result.global_step, "weights": weights, "history": history}))


if __name__ == "__main__":
    main()
