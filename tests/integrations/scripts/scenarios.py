"""Many runs in one process: each whole, and broken off by an exception and resumed. FOLDER [NAMES]

Prints, by name, what the whole run and the one in parts came to.
"""

import contextlib
import json
import os
import sys
from pathlib import Path

import torch
from pretrain import SIZE, Words, digest, mask
from transformers import BertConfig, BertForMaskedLM, EarlyStoppingCallback, Trainer, TrainerCallback, set_seed
from transformers import TrainingArguments as Arguments

from dist_toolkit.integrations.transformers import attach

USUAL = {"max_steps": 9, "save_steps": 2, "logging_steps": 3, "eval_strategy": "steps", "eval_steps": 2}
BY_EPOCHS = {"num_train_epochs": 3, "eval_strategy": "epoch", "logging_strategy": "epoch"}
THE_WORST = {  # stops after three evaluations that were better than the first
    "metric_for_best_model": "loss", "greater_is_better": True, "load_best_model_at_end": True, "save_total_limit": 1,
}  # fmt: skip
SCENARIOS = {
    "accumulation": (USUAL | {"gradient_accumulation_steps": 3}, 7),
    "bf16": (USUAL | {"bf16": True, "gradient_accumulation_steps": 2}, 7),
    "workers": (USUAL | {"dataloader_num_workers": 2}, 5),
    "by length": (USUAL | {"train_sampling_strategy": "group_by_length", "length_column_name": "input_ids"}, 7),
    "epochs": (BY_EPOCHS | {"save_strategy": "epoch"}, 7),
    "steps and epochs": (BY_EPOCHS | {"save_steps": 5}, 6),
    "eval on start": (USUAL | {"eval_on_start": True, "lr_scheduler_type": "cosine", "logging_first_step": True}, 3),
    "early stopping": (USUAL | THE_WORST | {"max_steps": 20, "learning_rate": 0.01}, 5),
    "plateau": (USUAL | {"lr_scheduler_type": "reduce_lr_on_plateau", "optim": "adafactor"}, 5),
    "sgd": (USUAL | {"optim": "sgd", "optim_args": "momentum=0.9"}, 5),
}  # fmt: skip


class Broken(Exception):
    """As if the program had been killed."""


class Break(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise Broken


def run(folder, given, stop_at=None):
    """Train until the end, or until it is broken off; what came of it."""
    args = Arguments(
        f"{folder}/out", use_cpu=True, per_device_train_batch_size=2, report_to=[], disable_tqdm=True, seed=3, **given
    )
    set_seed(args.seed)
    callbacks = [] if stop_at is None else [Break(stop_at)]
    if args.load_best_model_at_end:
        callbacks.append(EarlyStoppingCallback(3))
    model = BertForMaskedLM(BertConfig(vocab_size=32, max_position_embeddings=8, **SIZE))
    samples = Words(20, draws=True)
    if "length_column_name" in given:
        samples = [{"input_ids": torch.arange(8), "number": number} for number in range(20)]
    trainer = Trainer(model, args, mask, samples, Words(6, False), callbacks=callbacks)
    attach(trainer, folder)
    trainer.train()
    history = [
        {key: value for key, value in line.items() if not key.endswith(("_runtime", "_per_second"))}
        for line in trainer.state.log_history
    ]
    return {"step": trainer.state.global_step, "weights": digest(trainer.model), "history": history}


def main():
    folder, names = Path(sys.argv[1]), sys.argv[2:] or [*SCENARIOS]
    for name in names:
        given, stop_at = SCENARIOS[name]
        whole = run(folder / name / "whole", given)
        with contextlib.suppress(Broken):
            run(folder / name / "parts", given, stop_at)
        parts = run(folder / name / "parts", given)
        if not int(os.environ.get("RANK", "0")):
            print("@" + json.dumps({"name": name, "whole": whole, "parts": parts}), flush=True)


if __name__ == "__main__":
    main()
