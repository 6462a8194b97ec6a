"""Train T5 to translate German numbers in words to English; or fine-tune --model ID on them.

dtk launch --nproc 2 examples/finetune_translation.py

dreihunderteinundzwanzig -> three hundred twenty-one. No trained encoder-decoder is to be had without a network, so the
default is a small T5 of random weights, which reads and writes bytes; --model ID fine-tunes a trained one.
`python examples/finetune_translation.py` is the same program on one process. Started again, it goes on where it was.
"""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from shared import bleu, hub, numbers, practice, pretrained
from torch import nn
from transformers import AutoModelForSeq2SeqLM, ByT5Tokenizer, T5Config, T5ForConditionalGeneration

import dist_toolkit as dtk

IGNORED = -100  # cross_entropy's own
Sample = tuple[str, str]


def open_samples(args: argparse.Namespace) -> tuple[list[Sample], list[Sample]]:
    """Pairs of a text and its translation, to train on and held out."""
    if args.hub:
        rows = hub.rows(args.hub, "train", "translation")["translation"]
        pairs = [(row[args.source], row[args.target]) for row in rows]
    else:
        pairs = [(numbers.german(number), numbers.english(number)) for number in range(args.numbers)]
    return [pair for number, pair in enumerate(pairs) if number % 20 != 7], pairs[7::20]


def build(tokens: int, args: argparse.Namespace) -> nn.Module:
    """The trained model; or a T5 of random weights in the given size."""
    if args.model:
        return AutoModelForSeq2SeqLM.from_pretrained(args.model)
    size = {"d_model": args.width, "d_ff": 4 * args.width, "d_kv": 32, "num_heads": args.width // 32}
    layers = {"num_layers": args.layers, "num_decoder_layers": args.layers, "dropout_rate": args.dropout}
    return T5ForConditionalGeneration(T5Config(vocab_size=tokens, decoder_start_token_id=0, **size, **layers))


def translate(engine: dtk.Engine, batch: dict[str, torch.Tensor], length: int) -> torch.Tensor:
    """The likeliest next tokens, one after the other: (samples, length)."""
    start = engine.module.config.decoder_start_token_id
    written = torch.full((len(batch["input_ids"]), 1), start, device=engine.device)
    encoded = None
    for _ in range(length):
        output = engine(**batch, decoder_input_ids=written, encoder_outputs=encoded)
        encoded = (output.encoder_last_hidden_state,)
        written = torch.cat([written, output.logits[:, -1:].argmax(2)], 1)
    return written[:, 1:]


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model", metavar="ID", help="a folder, or an id of the Hugging Face hub such as google/byt5-small"
    )
    parser.add_argument("--layers", type=int, default=2, help="of encoder and decoder each (default: %(default)s)")
    parser.add_argument("--width", type=int, default=64, help="default: %(default)s")
    add = parser.add_argument_group("data").add_argument
    add("--numbers", type=int, default=5000, metavar="N", help="those below N (default: %(default)s)")
    add("--hub", metavar="ID", help="a data set of the Hugging Face hub, such as Helsinki-NLP/opus_books:de-en")
    add("--source", default="de", help="its language to translate from (default: %(default)s)")
    add("--target", default="en", help="its language to translate to (default: %(default)s)")
    practice.add_options(
        parser,
        epochs=6,
        optimizer="adamw",
        lr=3e-3,
        warmup=0.1,
        weight_decay=0.01,
        clip_grad=1.0,
        global_batch_size=32,
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    samples, held_out = open_samples(args)
    tokenizer = pretrained.tokenizer(args.model) if args.model else ByT5Tokenizer(extra_ids=0)

    def collate(rows: list[Sample]) -> dict[str, Any]:
        given, wanted = zip(*rows, strict=True)
        batch = tokenizer(list(given), padding=True, return_tensors="pt")
        told = tokenizer(text_target=list(wanted), padding=True, return_tensors="pt")
        return {**batch, "labels": told.input_ids.masked_fill(told.attention_mask == 0, IGNORED)}

    with dtk.init(seed=args.seed) as rt:
        train = practice.train_loader(rt, args, samples, collate_fn=collate)
        test = rt.loader(held_out, global_batch_size=256, train=False, collate_fn=collate)
        engine = practice.setup(rt, args, partial(build, len(tokenizer), args), args.epochs * len(train))
        ckpt = rt.checkpointer(engine=engine, loader=train, every=args.save_every, keep_last=2)

        def evaluate() -> str:
            """How many held-out texts are translated exactly, and BLEU: counts are summed over ranks, not scores."""
            exact, mine = rt.mean(), torch.zeros(10, dtype=torch.int64)
            with engine.evaluating():
                for batch in test:
                    labels = batch.pop("labels")
                    texts = tokenizer.batch_decode(translate(engine, batch, labels.shape[1]), skip_special_tokens=True)
                    wanted = tokenizer.batch_decode(labels.clamp(min=0), skip_special_tokens=True)
                    for text, truth in zip(texts, wanted, strict=True):
                        exact.update(text == truth)
                        mine += torch.tensor(bleu.counts(bleu.words(text), bleu.words(truth)))
            score = bleu.bleu(rt.gather(mine[None]).sum(0).tolist())
            return f"{exact.compute():.4f} of unseen texts translated exactly, BLEU {score:.2f}"

        for step, whole in ckpt.steps(train, epochs=args.epochs):
            for batch in engine.accumulate(whole, args.accumulate, weigh=lambda b: (b["labels"] != IGNORED).sum()):
                logits = engine(**batch).logits
                loss = F.cross_entropy(logits.transpose(1, 2), batch["labels"], ignore_index=IGNORED)
                engine.backward(loss)
            practice.update(engine, args)
            rt.log(step, loss=loss)
        rt.print(f"{evaluate()}, after {ckpt.step} steps")


if __name__ == "__main__":
    main()
