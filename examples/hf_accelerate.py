"""A loop with Accelerate: a small GPT-2 learns Python from the source of the standard library, byte by byte.

dtk launch --nproc 2 --strategy ddp examples/hf_accelerate.py

Nothing in here is of dist_toolkit: the launcher tells Accelerate of the ranks and the strategy.
"""

from __future__ import annotations

import argparse
import math
import sysconfig
from pathlib import Path

import torch
from accelerate import Accelerator, InitProcessGroupKwargs
from accelerate.utils import set_seed
from torch.utils.data import DataLoader
from transformers import GPT2Config, GPT2LMHeadModel, get_cosine_schedule_with_warmup


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output-dir", default="runs/accelerate", help="of its checkpoints (default: %(default)s)")
    parser.add_argument("--files", type=int, default=40, help="of the standard library (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=120, help="of the optimizer (default: %(default)s)")
    parser.add_argument("--save-every", type=int, default=40, metavar="STEPS", help="(default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=8, help="of a rank (default: %(default)s)")
    parser.add_argument("--width", type=int, default=128, help="of the model (default: %(default)s)")
    parser.add_argument("--layers", type=int, default=2, help="of the model (default: %(default)s)")
    parser.add_argument("--lr", type=float, default=1e-3, help="learning rate (default: %(default)s)")
    return parser.parse_args()


def samples(args: argparse.Namespace, length: int = 128) -> torch.Tensor:
    """Pieces of `length` bytes of all files, one a row."""
    paths = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))[: args.files]
    text = b"\n".join(path.read_bytes() for path in paths)
    return torch.frombuffer(bytearray(text), dtype=torch.uint8)[: len(text) // length * length].view(-1, length).long()


def main() -> None:
    args = parse_args()
    backend = None if torch.cuda.is_available() else "gloo"
    accelerator = Accelerator(kwargs_handlers=[InitProcessGroupKwargs(backend=backend)])
    set_seed(0)
    pieces = samples(args)
    size = {"n_embd": args.width, "n_layer": args.layers, "n_head": 4}
    model = GPT2LMHeadModel(GPT2Config(vocab_size=256, n_positions=128, bos_token_id=0, eos_token_id=0, **size))
    held_out = torch.arange(len(pieces)) % 50 == 0
    train = DataLoader(pieces[~held_out], batch_size=args.batch_size, shuffle=True, drop_last=True)
    test = DataLoader(pieces[held_out][:100], batch_size=args.batch_size)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, weight_decay=0.0)
    ranks = accelerator.num_processes  # a prepared schedule makes that many steps at once
    schedule = get_cosine_schedule_with_warmup(optimizer, args.steps // 10 * ranks, args.steps * ranks)
    model, optimizer, train, test, schedule = accelerator.prepare(model, optimizer, train, test, schedule)

    saved = sorted(int(folder.name.removeprefix("step_")) for folder in Path(args.output_dir).glob("step_*"))
    step = saved[-1] if saved else 0
    if saved:
        accelerator.load_state(f"{args.output_dir}/step_{step}")
    for epoch in range(step // len(train), math.ceil(args.steps / len(train))):
        train.set_epoch(epoch)
        for batch in accelerator.skip_first_batches(train, step % len(train)):
            loss = model(input_ids=batch, labels=batch).loss
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            step += 1
            if step % 10 == 0:
                accelerator.print(f"step {step}: loss {loss.item():.3f}")
            if step % args.save_every == 0:
                accelerator.save_state(f"{args.output_dir}/step_{step}")
            if step == args.steps:
                break

    model.eval()
    with torch.no_grad():
        losses = [model(input_ids=batch, labels=batch).loss.repeat(len(batch)) for batch in test]
    mean = accelerator.gather_for_metrics(torch.cat(losses)).mean().item()
    accelerator.print(f"loss {mean:.3f} a byte after {step} steps")
    accelerator.end_training()


if __name__ == "__main__":
    main()
