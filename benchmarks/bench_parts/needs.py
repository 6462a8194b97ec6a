"""What a benchmark needs of the machine that it is to run on, for `dtk bench NAME --slurm`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from .arguments import UsageError
from .stale import report_that_is_a_folder

_FEW_CORES = 2  # of a benchmark that has no --nproc


def needs(options: Any) -> dict[str, Any]:
    """`out`, an absolute path, and the `cores` of each node. Writes nothing.

    Raises:
        UsageError: `out` cannot be written to.
    """
    out = Path(options.out).absolute()
    if folder := report_that_is_a_folder(out):
        raise UsageError(f"cannot write to --out {options.out} ({folder} is a folder); pass another --out")
    there = next(folder for folder in (out, *out.parents) if folder.exists())
    if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
        raise UsageError(f"cannot write to --out {options.out} ({there} is no folder that can be written to)")
    nproc = getattr(options, "nproc", _FEW_CORES)
    return {"out": str(out), "cores": max(nproc) if isinstance(nproc, (tuple, list)) else int(nproc)}
