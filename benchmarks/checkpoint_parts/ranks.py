"""How the ranks are started."""

from __future__ import annotations

from pathlib import Path

from bench_parts.ranks import launch

from .arguments import Options

_RANK = Path(__file__).resolve().parent.parent / "_checkpoint_rank.py"


def command(options: Options, folder: Path, first: int, run_dir: Path) -> list[str]:
    """`dtk launch` with the ranks of all methods, which write to `folder` and go on with round `first`."""
    words = ["--methods", ",".join(options.methods), "--cases", ",".join(options.cases), "--folder", str(folder)]
    words += ["--first", str(first)]
    for name in ("mib", "tensors", "settle", "seed", "rounds", "threads"):
        words += [f"--{name}", str(getattr(options, name))]
    return launch(options.nproc, run_dir, "cpu", _RANK, words)
