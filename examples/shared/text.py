"""Text that every machine has: the source of Python's standard library; and a tokenizer trained on it."""

from __future__ import annotations

import argparse
import sysconfig
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

import dist_toolkit as dtk
from shared import hub
from shared.ending import refuse

SPECIAL = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}


def add_options(parser: argparse.ArgumentParser, files: int) -> None:
    """--text, --files and --vocabulary."""
    group = parser.add_argument_group("data")
    group.add_argument("--text", type=Path, help="a folder of .txt or .py files (default: Python's standard library)")
    group.add_argument(
        "--hub", metavar="ID", help="a data set of the Hugging Face hub with a column `text`, in its place"
    )
    group.add_argument(
        "--files", type=int, default=files, help="of the folder, the first by name (default: %(default)s)"
    )
    group.add_argument("--vocabulary", type=int, default=2048, help="of the tokenizer (default: %(default)s)")


def documents(args: argparse.Namespace) -> list[str]:
    """The texts, in the same order on every rank; two of them at least."""
    if args.hub:
        return [row["text"] for row in hub.rows(args.hub, "train", "text") if row["text"].strip()]
    folder = args.text or Path(sysconfig.get_path("stdlib"))
    paths = sorted(path for path in folder.glob("*") if path.suffix in (".py", ".txt"))[: args.files]
    if not paths:
        refuse(f"no .txt or .py file in {folder}; pass --text FOLDER")
    return [path.read_text(encoding="utf-8", errors="replace") for path in paths]


def tokenizer_of(texts: list[str], size: int, path: Path) -> str:
    """A byte-level BPE tokenizer of `size` entries as JSON: from `path`, or trained and written there. For one rank."""
    if path.exists():  # a run that goes on keeps its tokenizer
        return path.read_text(encoding="utf-8")
    tokenizer = Tokenizer(models.BPE(unk_token=SPECIAL["unk_token"]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=list(SPECIAL.values()), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}")
    unfinished.write_text(tokenizer.to_str(), encoding="utf-8")
    unfinished.replace(path)
    return tokenizer.to_str()


def tokenized(
    rt: dtk.Runtime, texts: list[str], vocabulary: int
) -> tuple[PreTrainedTokenizerFast, list[list[int]], list[list[int]]]:
    """A tokenizer, the tokens of each text to train on, and those of every tenth, held out. Collective."""
    train, held_out = [text for number, text in enumerate(texts) if number % 10 != 1], texts[1::10]
    told = rt.decide(tokenizer_of, train, vocabulary, rt.run_dir / "tokenizer.json")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(told), **SPECIAL)
    return tokenizer, _tokens(tokenizer, train), _tokens(tokenizer, held_out)


def _tokens(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> list[list[int]]:
    return [encoding.ids for encoding in tokenizer.backend_tokenizer.encode_batch(texts, add_special_tokens=False)]


def packed(documents: list[list[int]], length: int, end: int) -> torch.Tensor:
    """Documents one behind the other, each with the token `end` behind it, cut to rows of `length`: (rows, length)."""
    stream = torch.tensor([token for document in documents for token in (*document, end)])
    return stream[: len(stream) // length * length].view(-1, length)
