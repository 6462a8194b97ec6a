"""BERT or RoBERTa from random weights: masked tokens, and for BERT whether the second segment is the next one.

dtk launch --nproc 2 examples/language_mlm.py --model bert

`python examples/language_mlm.py` is the same program on one process. Started again, it goes on where it was.
"""

from __future__ import annotations

import argparse
import math
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from shared import practice, text
from shared.masking import IGNORED, Pairs, Rows
from torch import nn
from transformers import BertConfig, BertForPreTraining, RobertaConfig, RobertaForMaskedLM

import dist_toolkit as dtk


def build(vocabulary: int, padding: int, args: argparse.Namespace) -> nn.Module:
    """The model in the given size; `--layers 12 --width 768 --tokens 512` is bert-base (Devlin et al., 2019)."""
    size: dict[str, Any] = {
        "vocab_size": vocabulary, "pad_token_id": padding, "num_hidden_layers": args.layers, "hidden_size": args.width,
        "num_attention_heads": max(1, args.width // 64), "intermediate_size": 4 * args.width,
        "hidden_dropout_prob": args.dropout, "attention_probs_dropout_prob": args.dropout,
    }  # fmt: skip
    if args.model == "bert":
        return BertForPreTraining(BertConfig(max_position_embeddings=args.tokens, **size))
    return RobertaForMaskedLM(
        RobertaConfig(max_position_embeddings=args.tokens + padding + 1, type_vocab_size=1, **size)
    )


def losses_of(engine: dtk.Engine, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Of each masked token, in nats; and of each pair, whether its second segment is the next one."""
    labels = batch["labels"]
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids") if name in batch}
    output = engine(**inputs)
    logits = output.prediction_logits if "is_next" in batch else output.logits
    masked = labels != IGNORED
    of_tokens = F.cross_entropy(logits[masked].float(), labels[masked], reduction="none")
    if "is_next" not in batch:
        return of_tokens, None
    return of_tokens, F.cross_entropy(output.seq_relationship_logits.float(), batch["is_next"], reduction="none")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=["bert", "roberta"], default="bert")
    parser.add_argument("--layers", type=int, default=2, help="default: %(default)s")
    parser.add_argument("--width", type=int, default=128, help="default: %(default)s")
    parser.add_argument("--tokens", type=int, default=64, help="of a sample (default: %(default)s)")
    practice.add_options(
        parser,
        epochs=3,
        optimizer="adamw",
        lr=2e-3,
        warmup=0.1,
        weight_decay=0.01,
        clip_grad=1.0,
        global_batch_size=32,
    )
    text.add_options(parser, files=20)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    texts = text.documents(args)
    with dtk.init(seed=args.seed) as rt:
        tokenizer, documents, held_out = text.tokenized(rt, texts, args.vocabulary)
        samples = Pairs if args.model == "bert" else Rows
        train = practice.train_loader(rt, args, samples(documents, args.tokens, tokenizer))
        test_set = samples(held_out, args.tokens, tokenizer, seed=args.seed)
        test = rt.loader(test_set, global_batch_size=args.global_batch_size, train=False)
        model = partial(build, len(tokenizer), tokenizer.pad_token_id, args)
        engine = practice.setup(rt, args, model, args.epochs * len(train))
        ckpt = rt.checkpointer(engine=engine, loader=train, every=args.save_every, keep_last=2)

        def evaluate() -> str:
            tokens, pairs = rt.mean(), rt.mean()
            with engine.evaluating():
                for batch in test:
                    of_tokens, of_pairs = losses_of(engine, batch)
                    tokens.update(of_tokens)
                    if of_pairs is not None:
                        pairs.update(of_pairs < math.log(2))  # more than even odds for what is true
            said = f"{args.model}: perplexity {math.exp(tokens.compute()):.1f} a masked token"
            return said + (f", next segment {pairs.compute():.3f} right" if args.model == "bert" else "")

        for step, whole in ckpt.steps(train, epochs=args.epochs):
            for batch in engine.accumulate(whole, args.accumulate, weigh=lambda b: (b["labels"] != IGNORED).sum()):
                of_tokens, of_pairs = losses_of(engine, batch)
                loss = of_tokens.mean() if of_pairs is None else of_tokens.mean() + of_pairs.mean()
                engine.backward(loss)
            practice.update(engine, args)
            rt.log(step, loss=loss)
            if step % len(train) == 0:
                rt.print(f"epoch {step // len(train)} of {args.epochs}: {evaluate()}")
        rt.print(f"{evaluate()} after {ckpt.step} steps")


if __name__ == "__main__":
    main()
