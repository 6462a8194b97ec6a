"""The command line of `dtk ckpt`."""

from __future__ import annotations

import argparse
from typing import Any, NoReturn

from dist_toolkit.checkpoint.tool.cast import NAMES
from dist_toolkit.checkpoint.tool.outcome import UsageError

_EPILOG = """\
PATH is the directory that a run gave to rt.checkpointer(...), or one step-N directory in it.

  dtk ckpt ls runs/demo                       what is there
  dtk ckpt show runs/demo --step 1000         one checkpoint: who, when, metrics, tensors as a tree
  dtk ckpt verify runs/demo                   read every byte; name the file and the tensor of any damage
  dtk ckpt diff runs/a runs/b --only model    are the newest weights of two runs the same, to the bit?
  dtk ckpt convert runs/demo model.safetensors
  dtk ckpt convert old.pt runs/new            a file of torch.save as a checkpoint
  dtk ckpt prune runs/demo --keep-last 3 --dry-run

Every command takes --json: one object on stdout. Exit codes: 0 all is well; 1 damage or a difference was
found; 2 the input cannot be used. All but prune leave the directory as it is, also while a run saves there.
NO_COLOR=1 switches colours off."""

_SHOW = """\
Show one checkpoint: the newest committed one, unless --step or PATH says another.

Tensors are shown as a tree with totals. Numbered entries that are alike are folded into one line,
`layers.{0..31}`, whose size is that of all; what stands below it is one of them."""

_VERIFY = """\
Read every byte of the checkpoints and compare it with the digests in their records.

Those that the run has set aside (step-N.aside) are left out, unless PATH names one or --all is given."""

_DIFF = """\
Compare the state in two checkpoints: tensors (names, types, shapes, bytes), plain values, metrics.

A and B are step-N directories or directories of checkpoints, of which the newest is taken, or that of
--step. With one directory, give --step twice. Tensors that both saved in the same chunks are compared by
their digests, others by reading them, so numbers of ranks may differ. Damage is for verify to find."""

_CONVERT = """\
Convert a checkpoint to files for others, or others' files to a checkpoint.

To one safetensors file (OUT ends with .safetensors, or --to safetensors): the weights, put together from the
files of all ranks, under the names of the model's state_dict.

To a Hugging Face folder (--to hf --config DIR): model.safetensors, or several with an index, and config.json
and the tokenizer's files from DIR; AutoModel.from_pretrained(OUT) loads it. Tied weights are stored once.

From torch.save (a .pt, .pth, .bin or .ckpt file), from torch.distributed.checkpoint (a directory with
.metadata) or from DeepSpeed (a directory that save_checkpoint wrote, ZeRO 0 to 3): OUT is a directory of
checkpoints, in which step-N appears with weights, optimizer state and step; rt.checkpointer(OUT) restores it.
Nothing in a pickle is executed: a file that would need it is refused. Optimizer state that a file holds
by number is given to names only where that is certain; else the error says what to pass.

Every byte that is read from our own files is compared with its digest. What is not converted is not read:
damage in it (in the optimizer's state, say) is for dtk ckpt verify to find. OUT is there as a whole or not at
all.
Memory: about 1 MiB, whatever the size of the model; from others, about 1 GiB and the largest tensor. torch is
needed, and loaded, only to read others' files.

  dtk ckpt convert runs/demo model.safetensors
  dtk ckpt convert runs/demo my-model --to hf --config bert-base-uncased --dtype bf16
  dtk ckpt convert old/checkpoint.pt runs/new --step 5000
  dtk ckpt convert zero-run runs/new --from deepspeed"""

_PRUNE = """\
Delete checkpoints, by the rules that rt.checkpointer(keep_last=, keep_every=, keep_best=) has.

Damaged checkpoints, and those that a run set aside, are never deleted and do not count as kept; without
--verify only records and file sizes are looked at. Asks before it deletes; where there is no terminal to
ask on, --yes is needed. A directory in which a run saves is refused; --dry-run looks at it."""


class Parser(argparse.ArgumentParser):
    """Raises UsageError where argparse would print the usage and exit."""

    def error(self, message: str) -> NoReturn:
        """See `UsageError`."""
        raise UsageError(f"{message}; {self.prog} --help lists what there is")


def parse(argv: list[str]) -> argparse.Namespace:
    """The command and its options.

    Raises:
        UsageError: they cannot be understood.
        SystemExit: --help was asked for, and printed.
    """
    given = _parser().parse_args(argv)
    for name in ("depth", "keep_last", "keep_every"):
        value = getattr(given, name, None)
        if value is not None and value < 1:
            raise UsageError(f"--{name.replace('_', '-')} {value} is not a positive number")
    return given


def help_text() -> str:
    """What --help prints."""
    return _parser().format_help()


def _parser() -> Parser:
    form = argparse.RawDescriptionHelpFormatter
    about = "Look at checkpoints, check, compare and thin them out. Starts no training and needs no GPU."
    parser = Parser(prog="dtk ckpt", description=about, epilog=_EPILOG, formatter_class=form, allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=Parser)

    def command(name: str, short: str, about: str) -> Parser:
        made = commands.add_parser(name, help=short, description=about, formatter_class=form, allow_abbrev=False)
        made.add_argument("--json", action="store_true", help="print one JSON object")
        return made

    listing = command("ls", "list the checkpoints of a directory", "List the checkpoints of a directory, newest first.")
    listing.add_argument("root", metavar="PATH", help="a directory of checkpoints")
    _add_show(command("show", "show one checkpoint", _SHOW))
    _add_verify(command("verify", "compare every byte with its digest", _VERIFY))
    _add_diff(command("diff", "compare two checkpoints", _DIFF))
    _add_convert(command("convert", "to safetensors or Hugging Face; from torch.save, DCP, DeepSpeed", _CONVERT))
    _add_prune(command("prune", "delete all but those to keep", _PRUNE))
    return parser


def _add_show(parser: Parser) -> None:
    _add_path(parser)
    parser.add_argument("--depth", type=int, default=3, metavar="N", help="levels of the tree (default: %(default)s)")
    parser.add_argument("--all", action="store_true", help="all levels, nothing folded, values in full")


def _add_verify(parser: Parser) -> None:
    _add_path(parser)
    parser.add_argument("--all", action="store_true", help="those set aside too")


def _add_diff(parser: Parser) -> None:
    parser.add_argument("paths", metavar="A", nargs=1, help="a checkpoint, or a directory of checkpoints")
    parser.add_argument("other", metavar="B", nargs="?", help="another (default: the same directory)")
    add: Any = parser.add_argument
    add("--step", type=int, action="append", default=[], metavar="N", help="once: of both; twice: of A, then of B")
    add("--only", action="append", default=[], metavar="NAME", help="names that are NAME or begin with NAME. (repeat)")
    add("--all", action="store_true", help="list every difference")


def _add_convert(parser: Parser) -> None:
    parser.add_argument("path", metavar="PATH", help="a directory of checkpoints, one checkpoint, or others' files")
    add: Any = parser.add_argument
    add("out", metavar="OUT", help="what to write: a file, a new folder, or a directory of checkpoints")
    add("--step", type=int, metavar="N", help="the checkpoint of this step; from others: the step it is to have")
    add("--strip", action="append", default=[], metavar="PREFIX", help="take PREFIX off the names of weights (repeat)")
    out = parser.add_argument_group("to others' formats").add_argument
    out("--to", choices=["safetensors", "hf"], help="one file, or a Hugging Face folder")
    out("--dtype", choices=[*NAMES], help="convert floats, rounded to nearest even (default: as they are)")
    out("--config", metavar="DIR", help="hf: the model's folder, or its config.json")
    out("--max-shard-size", metavar="SIZE", help="hf: of one file, 500MB or 2GiB, say (default: 5GB)")
    out("--engine", default="", metavar="NAME", help="the weights of this engine, where the run had several")
    out("--all", action="store_true", help="one file: every tensor under its own name, optimizer and generators too")
    out("--force", action="store_true", help="one file: replace OUT if it exists")
    add = parser.add_argument_group("from others' formats").add_argument
    add("--from", dest="source", choices=["torch", "dcp", "deepspeed"], help="(default: what PATH looks like)")
    add("--model-key", metavar="KEY", help="where the weights are in the file (default: model, state_dict, ...)")
    add("--optimizer-key", metavar="KEY", help="where the optimizer's state is (default: optimizer, optim, ...)")
    add("--scheduler-key", metavar="KEY", help="convert this schedule too (default: left out)")
    add("--param-names", metavar="FILE", help="JSON list: names of the optimizer's parameters, in its order")


def _add_prune(parser: Parser) -> None:
    add: Any = parser.add_argument
    add("root", metavar="PATH", help="a directory of checkpoints")
    add("--keep-last", type=int, required=True, metavar="N", help="keep the newest N")
    add("--keep-every", type=int, metavar="K", help="and those whose step is a multiple of K")
    add("--keep-best", metavar="max:NAME", help="and the best one by this metric; min:NAME for the least")
    add("--verify", action="store_true", help="read every byte first: what is damaged does not count as kept")
    add("--dry-run", action="store_true", help="say what would go, and delete nothing")
    add("--yes", action="store_true", help="do not ask")


def _add_path(parser: Parser) -> None:
    parser.add_argument("path", metavar="PATH", help="a directory of checkpoints, or one checkpoint")
    parser.add_argument("--step", type=int, metavar="N", help="the checkpoint of this step")
