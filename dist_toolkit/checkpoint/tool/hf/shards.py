"""Which tensor goes into which file of a Hugging Face folder, and the index of several files. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from dist_toolkit.checkpoint.tool.outcome import UsageError

INDEX = "model.safetensors.index.json"
_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}


def parse_size(text: str) -> int:
    """Bytes, of a text like 5GB (decimal) or 5GiB.

    Raises:
        UsageError: it is none, or not positive.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", text.strip())
    unit = _UNITS.get(match[2].upper()) if match else None
    if match is None or unit is None or int(float(match[1]) * unit) < 1:
        raise UsageError(f"--max-shard-size {text!r} is not a size; write 5GB, 500MB or 2GiB")
    return int(float(match[1]) * unit)


def split(sizes: Mapping[str, int], most: int) -> dict[str, list[str]]:
    """File name -> tensors, in the given order; a tensor larger than `most` bytes has a file of its own."""
    groups: list[list[str]] = [[]]
    held = 0
    for name, size in sizes.items():
        if groups[-1] and held + size > most:
            groups.append([])
            held = 0
        groups[-1].append(name)
        held += size
    if len(groups) == 1:
        return {"model.safetensors": groups[0]}
    count = len(groups)
    return {f"model-{number:05d}-of-{count:05d}.safetensors": names for number, names in enumerate(groups, 1)}


def index(files: Mapping[str, list[str]], sizes: Mapping[str, int]) -> str:
    """The text of `INDEX`."""
    weights = {name: file for file, names in files.items() for name in names}
    held = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": dict(sorted(weights.items()))}
    return json.dumps(held, indent=2) + "\n"
