"""`dtk submit --sweep`: the arguments of each task of an array. Pure."""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Sequence
from dataclasses import replace

from dtk_launch.errors import PlanError
from dtk_launch.options import SubmitOptions

_MOST = 1000  # tasks; SLURM's MaxArraySize is 1001 unless the site says otherwise
_NAME = re.compile(r"[A-Za-z_][\w.-]*")
_RANGE = re.compile(r"(-?\d+):(-?\d+)")


def with_sweep(options: SubmitOptions) -> tuple[SubmitOptions, tuple[tuple[str, ...], ...]]:
    """(options of the array, arguments of each task); as they are, and (), without --sweep. Raises PlanError."""
    if not options.sweep:
        return options, ()
    if options.array:
        raise PlanError(f"--array={options.array}, but --sweep makes the array; drop one of the two")
    tasks = sweep_tasks(options.sweep)
    return replace(options, array=f"0-{len(tasks) - 1}"), tasks


def sweep_tasks(given: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """`lr=1,2` and `seed=0:2` -> every combination, as `--lr=1 --seed=0` and so on; the last one changes fastest."""
    axes: dict[str, list[str]] = {}
    for text in given:
        name, equals, values = text.partition("=")
        if not equals or not _NAME.fullmatch(name):
            raise PlanError(f"--sweep {text!r} is not NAME=VALUES; pass for example --sweep lr=1e-3,3e-4 or seed=0:4")
        if name in axes:
            raise PlanError(f"--sweep {text!r}, but {name} is swept already; pass all its values at once")
        found = _values(text, values)
        if len(set(found)) < len(found):
            raise PlanError(f"--sweep {text!r} has a value twice; pass each once")
        axes[name] = [f"--{name}={value}" for value in found]
    number = 1
    for values_of in axes.values():
        number *= len(values_of)
    if number > _MOST:
        raise PlanError(f"--sweep makes {number} runs, and an array has {_MOST} at most; pass fewer values")
    return tuple(itertools.product(*axes.values()))


def _values(text: str, values: str) -> list[str]:
    if span := _RANGE.fullmatch(values):
        first, end = int(span[1]), int(span[2])
        if not 0 < end - first <= _MOST:
            raise PlanError(
                f"--sweep {text!r}: {values} is a range as in Python, without its end, of 1 to {_MOST} numbers"
            )
        return [str(value) for value in range(first, end)]
    found = values.split(",")
    if "" in found:
        raise PlanError(f"--sweep {text!r} has an empty value; pass for example --sweep lr=1e-3,3e-4 or seed=0:4")
    if not values.isprintable():
        raise PlanError(f"--sweep {text!r} has a line break or control character; a value is one line")
    return found


def sweep_lines(tasks: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """Lines of bash that leave a task's arguments in `"$@"`."""
    cases = [f"{number}) set -- {shlex.join(words)} ;;" for number, words in enumerate(tasks)]
    return ('case "$SLURM_ARRAY_TASK_ID" in', *cases, "esac") if cases else ()
