"""The words of `dtk bench NAME ...`: which are dtk's and the benchmark's, and which are those of a script. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from dtk_launch.options import SubmitOptions, flag_of, option_fields

WITH_SCRIPT = ("advise",)
"""Benchmarks that take a script: what stands behind it is its own."""
SLURM = "--slurm"
_SWITCHES = (SLURM, "--resume", "--overwrite", "--json", "--help", "-h")


def split_script(name: str, words: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(options of dtk and of the benchmark, from the script on); the latter is () for a benchmark without a script.

    An option takes the next word unless it is a switch or holds its value (`--time=5`, `-c4`).
    """
    if name not in WITH_SCRIPT:
        return tuple(words), ()
    submit = option_fields(SubmitOptions)
    switches = {*_SWITCHES, *(flag_of(field.name) for field in submit if isinstance(field.default, bool))}
    at = 0
    while at < len(words) and words[at].startswith("-") and words[at] != "--":
        word = words[at]
        holds = "=" in word or (not word.startswith("--") and len(word) > 2)
        at += 1 if holds or word in switches else 2
    return tuple(words[:at]), tuple(words[at:])
