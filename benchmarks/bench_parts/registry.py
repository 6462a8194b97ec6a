"""Which benchmark made a result: its records say the name."""

from __future__ import annotations

import importlib
from pathlib import Path

from .arguments import UsageError
from .driver import Benchmark
from .records import NAME, Records, read_records

_SCRIPTS = Path(__file__).resolve().parent.parent


def read_result(path: Path) -> tuple[Benchmark, Records]:
    """The run whose folder, or results.jsonl, this is.

    Raises:
        UsageError: there is none.
    """
    folder = path.parent if path.name == NAME else path
    try:
        records = read_records(folder)
    except OSError:
        raise UsageError(f"{folder} holds no {NAME}; pass the --out of a benchmark that was run") from None
    except ValueError as error:
        raise UsageError(str(error)) from None
    name = records[0].get("benchmark")
    if not isinstance(name, str) or not name.isidentifier() or not (_SCRIPTS / f"{name}.py").exists():
        raise UsageError(f"{folder / NAME} does not say which benchmark made it")
    benchmark: Benchmark = importlib.import_module(name).BENCHMARK
    return benchmark, records
