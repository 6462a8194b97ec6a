"""Arguments that are for another machine than this: `dtk bench NAME --slurm` checks them before it submits a job.

What this machine has does not matter then; what the job asks for does.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping

CHECK = "BENCHMARK_CHECK"
"""Set: check the arguments for a machine with these `cores` and `gpus` (JSON), print what they need, and stop."""


def is_elsewhere(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether the arguments are for another machine."""
    return CHECK in environ


def has(what: str, environ: Mapping[str, str] = os.environ) -> int | None:
    """`cores` or `gpus` of that machine; None where it is this one."""
    return int(json.loads(environ[CHECK])[what]) if CHECK in environ else None
