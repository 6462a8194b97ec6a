"""Hugging Face's Trainer: a small GPT-2 learns Python from the source of the standard library, byte by byte.

dtk launch --nproc 2 --strategy ddp examples/hf_trainer.py

Nothing in here is of dist_toolkit: the launcher tells the Trainer of the ranks and the strategy.
"""

from __future__ import annotations

import argparse
import os
import sysconfig
from pathlib import Path

import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments, set_seed
from transformers.trainer_utils import get_last_checkpoint


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output-dir", default="runs/hf", help="of the Trainer (default: %(default)s)")
    parser.add_argument("--hub", metavar="ID", help="a data set of the Hugging Face hub with a column `text`")
    parser.add_argument("--files", type=int, default=40, help="of the standard library (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=120, help="of the optimizer (default: %(default)s)")
    parser.add_argument("--save-every", type=int, default=40, metavar="STEPS", help="(default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=8, help="of a rank (default: %(default)s)")
    parser.add_argument("--width", type=int, default=128, help="of the model (default: %(default)s)")
    parser.add_argument("--layers", type=int, default=2, help="of the model (default: %(default)s)")
    parser.add_argument("--lr", type=float, default=1e-3, help="learning rate (default: %(default)s)")
    parser.add_argument("--bf16", action="store_true", help="compute in 16 bits")
    return parser.parse_args()


def samples(args: argparse.Namespace, length: int = 128) -> list[dict[str, torch.Tensor]]:
    """Pieces of `length` bytes of all texts."""
    if args.hub:
        from datasets import load_dataset

        text = "\n".join(load_dataset(args.hub, split="train")["text"]).encode()
    else:
        paths = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))[: args.files]
        text = b"\n".join(path.read_bytes() for path in paths)
    pieces = torch.frombuffer(bytearray(text), dtype=torch.uint8)[: len(text) // length * length].view(-1, length)
    return [{"input_ids": piece.long(), "labels": piece.long()} for piece in pieces]


def main() -> None:
    args = parse_args()
    set_seed(0)
    pieces = samples(args)
    size = {"n_embd": args.width, "n_layer": args.layers, "n_head": 4}
    model = GPT2LMHeadModel(GPT2Config(vocab_size=256, n_positions=128, bos_token_id=0, eos_token_id=0, **size))
    arguments = TrainingArguments(
        args.output_dir,
        max_steps=args.steps,
        per_device_train_batch_size=args.batch_size,
        learning_rate=args.lr,
        warmup_steps=args.steps // 10,
        lr_scheduler_type="cosine",
        bf16=args.bf16,
        save_steps=args.save_every,
        save_total_limit=2,
        logging_steps=10,
        eval_strategy="no",
        report_to="none",
        disable_tqdm=True,
        ddp_backend=None if torch.cuda.is_available() or "RANK" not in os.environ else "gloo",
    )
    held_out, train = pieces[::50], [piece for number, piece in enumerate(pieces) if number % 50]
    trainer = Trainer(model, arguments, train_dataset=train, eval_dataset=held_out[:100])
    saved = Path(args.output_dir).is_dir() and get_last_checkpoint(args.output_dir) is not None
    trainer.train(resume_from_checkpoint=saved)
    loss = trainer.evaluate()["eval_loss"]
    if trainer.is_world_process_zero():
        print(f"loss {loss:.3f} a byte after {trainer.state.global_step} steps")


if __name__ == "__main__":
    main()
