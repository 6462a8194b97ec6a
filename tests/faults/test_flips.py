"""Damage to the files of a checkpoint that two ranks saved: all of it is found, named, and fallen back from."""

from __future__ import annotations

import logging
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.program import Program, found, results

FLIPS = 1000
NEWER = "step-00000002"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Steps 1 and 2."""
    results(tmp_path, lambda program: [program.save(1, 10.0), program.save(2, 20.0)], 2, size=50)
    return tmp_path


def test_a_thousand_flipped_bits(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    """In every file, at random; each by a program that has another state, and falls back to the older checkpoint."""
    choices = random.Random(11)
    paths = sorted((root / NEWER).iterdir())
    goods = {path: path.read_bytes() for path in paths}
    assert [path.name for path in paths] == ["manifest.json", "rank-00000.safetensors", "rank-00001.safetensors"]
    struck = {path: set() for path in paths}

    def flip_and_restore(program: Program) -> list[str]:
        undetected = []
        for number in range(FLIPS):
            path = paths[number % len(paths)]
            bit = choices.randrange(8 * len(goods[path]))
            bad = bytearray(goods[path])
            bad[bit // 8] ^= 1 << (bit % 8)
            path.write_bytes(bad)
            caplog.clear()
            outcome = program.restore()
            path.write_bytes(goods[path])
            named = any(f"{NEWER}/{path.name}" in message for message in caplog.messages)
            if outcome != (1, 10.0) or not named:
                undetected.append(f"{path.name} bit {bit}: {outcome}, said {caplog.messages}")
            struck[path].add(bit // 8 / len(bad) // 0.1)
        assert program.restore() == (2, 20.0)
        return undetected

    with caplog.at_level(logging.WARNING, "dist_toolkit"):
        assert results(root, flip_and_restore, size=50) == [[]]
    assert all(tenths == set(range(10)) for tenths in struck.values()), "in every part of every file"


def resize(by: int) -> Callable[[Path], None]:
    return lambda path: os.truncate(path, path.stat().st_size + by)


def zero(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def as_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def same_of(step: int) -> Callable[[Path], None]:
    """The file of that name of another step: as a copy, or as another name of the very same file."""

    def swap(path: Path) -> None:
        shutil.copy(path.parent.parent / f"step-{step:08d}" / path.name, path)

    return swap


def hard_link(path: Path) -> None:
    path.unlink()
    os.link(path.parent.parent / "step-00000001" / path.name, path)


def neighbour(path: Path) -> None:
    other = {"rank-00000.safetensors": "rank-00001.safetensors", "rank-00001.safetensors": "manifest.json"}
    shutil.copy(path.parent / other.get(path.name, "rank-00000.safetensors"), path)


DAMAGES: dict[str, Callable[[Path], None]] = {
    **{f"truncated by {by}": resize(-by) for by in (1, 4, 8, 50, 250)},
    **{f"truncated to {to}": lambda path, to=to: os.truncate(path, to) for to in (0, 1, 7, 8, 9, 100)},
    **{f"longer by {by}": resize(by) for by in (1, 4096)},
    "zeroed": zero,
    "missing": Path.unlink,
    "a directory": as_directory,
    "of another step": same_of(1),
    "a hard link to that of another step": hard_link,
    "a neighbour's": neighbour,
    "a link to nowhere": lambda path: (path.unlink(), path.symlink_to("nowhere")),
    "a link to itself": lambda path: (path.unlink(), path.symlink_to(path.name)),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_every_file_damaged_as_a_whole(root: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("manifest.json", "rank-00000.safetensors", "rank-00001.safetensors"):
        shutil.copytree(root / NEWER, root / "good")
        DAMAGES[damage](root / NEWER / name)
        with caplog.at_level(logging.WARNING, "dist_toolkit"):
            caplog.clear()
            assert found(root, 2, size=50) == (1, 10.0), name
        words = "has no commit record of its own" if name == "manifest.json" else name
        assert any(NEWER in said and (words in said or name in said) for said in caplog.messages), caplog.messages
        shutil.rmtree(root / NEWER)
        (root / "good").rename(root / NEWER)
        assert found(root, 2, size=50) == (2, 20.0)
