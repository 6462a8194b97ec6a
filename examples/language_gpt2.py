"""GPT-2 from random weights: causal language modelling of the source of Python's standard library, in packed rows.

dtk launch --nproc 2 examples/language_gpt2.py

`python examples/language_gpt2.py` is the same program on one process. Started again, it goes on where it was.
"""

from __future__ import annotations

import argparse
import math
from functools import partial

import torch
import torch.nn.functional as F
from shared import practice, text
from torch import nn
from torch.utils.data import TensorDataset
from transformers import GPT2Config, GPT2LMHeadModel

import dist_toolkit as dtk


def build(vocabulary: int, end: int, args: argparse.Namespace) -> nn.Module:
    """GPT-2 in the given size; `--layers 12 --width 768 --tokens 1024` is the smallest of Radford et al. (2019)."""
    rates = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), args.dropout)
    size = {
        "n_layer": args.layers,
        "n_embd": args.width,
        "n_head": max(1, args.width // 64),
        "n_positions": args.tokens,
    }
    return GPT2LMHeadModel(
        GPT2Config(vocab_size=vocabulary, bos_token_id=end, eos_token_id=end, use_cache=False, **size, **rates)
    )


def next_token_losses(engine: dtk.Engine, ids: torch.Tensor) -> torch.Tensor:
    """Of ids (samples, tokens), the cross-entropy of each token but the first: (samples, tokens - 1), in nats."""
    logits = engine(input_ids=ids).logits[:, :-1].float()
    return F.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=2, help="default: %(default)s")
    parser.add_argument("--width", type=int, default=128, help="default: %(default)s")
    parser.add_argument("--tokens", type=int, default=64, help="of a row (default: %(default)s)")
    practice.add_options(
        parser, epochs=3, optimizer="adamw", lr=2e-3, warmup=0.1, weight_decay=0.1, clip_grad=1.0, global_batch_size=32
    )
    text.add_options(parser, files=40)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    texts = text.documents(args)
    with dtk.init(seed=args.seed) as rt:
        tokenizer, documents, held_out = text.tokenized(rt, texts, args.vocabulary)
        end = tokenizer.sep_token_id
        rows, others = (TensorDataset(text.packed(part, args.tokens, end)) for part in (documents, held_out))
        train = practice.train_loader(rt, args, rows)
        test = rt.loader(others, global_batch_size=args.global_batch_size, train=False)
        engine = practice.setup(rt, args, partial(build, len(tokenizer), end, args), args.epochs * len(train))
        ckpt = rt.checkpointer(engine=engine, loader=train, every=args.save_every, keep_last=2)

        def perplexity() -> float:
            losses = rt.mean()  # over all tokens of all ranks, however they are shared out
            with engine.evaluating():
                for (ids,) in test:
                    losses.update(next_token_losses(engine, ids).flatten())
            return math.exp(losses.compute())

        for step, batch in ckpt.steps(train, epochs=args.epochs):
            for (ids,) in engine.accumulate(batch, args.accumulate):
                loss = next_token_losses(engine, ids).mean()
                engine.backward(loss)
            practice.update(engine, args)
            rt.log(step, loss=loss)
            if step % len(train) == 0:
                rt.print(f"epoch {step // len(train)} of {args.epochs}: perplexity {perplexity():.1f}")
        rt.print(f"perplexity {perplexity():.1f} a token after {ckpt.step} steps")


if __name__ == "__main__":
    main()
