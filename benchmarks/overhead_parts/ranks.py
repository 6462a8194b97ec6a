"""How the ranks are started."""

from __future__ import annotations

from pathlib import Path

from bench_parts.ranks import launch

from .arguments import Options

_RANK = Path(__file__).resolve().parent.parent / "_overhead_rank.py"


def command(options: Options, first: int, run_dir: Path) -> list[str]:
    """`dtk launch` with the ranks of all loops, which go on with round `first`."""
    words = [
        "--first",
        str(first),
        "--loops",
        ",".join(options.loops),
        "--feeds",
        ",".join(options.feeds),
        "--device",
        options.device,
    ]
    for name in ("batch", "width", "seed", "rounds", "steps", "threads"):
        words += [f"--{name}", str(getattr(options, name))]
    return launch(options.nproc, run_dir, options.device, _RANK, words)
