"""Records that a program has looked at are not decoded again while they stay the same; a change is seen at once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from dist_toolkit.checkpoint import heads
from dist_toolkit.checkpoint.catalog import committed_checkpoints
from dist_toolkit.checkpoint.manifest import Manifest, decode
from dist_toolkit.checkpoint.retention import Retention
from dist_toolkit.errors import NotSerializable
from dist_toolkit.storage import LocalStorage
from tests.faults.program import Program, found, results


@pytest.fixture
def decoded() -> Iterator[list[str]]:
    """The paths of records that were decoded for their heads, as in a process that has just begun."""
    paths: list[str] = []

    def count(data: bytes, path: str) -> Manifest:
        paths.append(path)
        return decode(data, path)

    with patch.object(heads, "_known", {}), patch.object(heads, "decode", count):
        yield paths


def steps(root: Path) -> list[str]:
    return sorted(path.name for path in root.glob("step-*"))


def test_a_save_decodes_no_record_that_it_knows(tmp_path: Path, decoded: list[str]) -> None:
    results(tmp_path, lambda program: [program.save(step, 1.0) for step in (1, 2)], retention=Retention(2))
    assert decoded == [], "its own"
    heads._known.clear()
    results(tmp_path, lambda program: [program.save(step, 1.0) for step in (3, 4, 5)], retention=Retention(2))
    assert sorted(Path(path).parent.name for path in decoded) == ["step-00000001", "step-00000002"], "each one once"
    assert steps(tmp_path) == ["step-00000004", "step-00000005"]


def test_a_restore_decodes_the_one_it_takes_and_the_save_the_others(tmp_path: Path, decoded: list[str]) -> None:
    results(tmp_path, lambda program: [program.save(step, 1.0) for step in (1, 2)])
    heads._known.clear()
    decoded.clear()
    results(tmp_path, lambda program: [program.restore(), program.save(3, 1.0)], retention=Retention(2))
    assert [Path(path).parent.name for path in decoded] == ["step-00000002", "step-00000001"]
    assert steps(tmp_path) == ["step-00000002", "step-00000003"]


@pytest.mark.parametrize("how", ["truncated", "flipped", "of an earlier step", "missing", "a directory"])
def test_a_known_record_that_is_damaged_counts_no_more(tmp_path: Path, decoded: list[str], how: str) -> None:
    def body(program: Program) -> None:
        program.save(1, 10.0)
        program.save(2, 20.0)
        record = tmp_path / "step-00000002" / "manifest.json"
        whole = record.read_bytes()
        record.unlink()
        if how == "a directory":
            record.mkdir()
        elif how != "missing":
            flipped = whole[:200] + bytes([whole[200] ^ 1]) + whole[201:]
            other = (tmp_path / "step-00000001" / "manifest.json").read_bytes()
            record.write_bytes({"truncated": whole[:-1], "flipped": flipped}.get(how, other))
        program.save(3, 30.0)
        assert steps(tmp_path) == ["step-00000001", "step-00000002", "step-00000003"]
        if how == "a directory":
            record.rmdir()
        record.write_bytes(whole)
        program.save(4, 40.0)

    results(tmp_path, body, retention=Retention(2))
    assert steps(tmp_path) == ["step-00000003", "step-00000004"]
    assert found(tmp_path) == (4, 40.0)


def test_what_is_remembered_of_a_save_is_what_the_record_says(tmp_path: Path) -> None:
    def body(program: Program) -> None:
        program.ckpt.report(loss=0.5)
        program.save(7, 1.0)

    results(tmp_path, body, 2)
    storage = LocalStorage(tmp_path)
    (known,) = committed_checkpoints(storage, look=heads.decode_head)
    with patch.object(heads, "_known", {}):
        (read,) = committed_checkpoints(storage, look=heads.decode_head)
    assert known == read
    assert known.manifest is not None
    assert (known.step, known.manifest.metrics) == (7, {"loss": 0.5})


def test_few_heads_are_kept() -> None:
    with patch.object(heads, "_known", {}), patch.object(heads, "_MOST", 3):
        for step in range(5):
            heads.remember(b"%d" % step, Manifest(step, 1, "", "", {}, {}))
        assert [head.step for head in heads._known.values()] == [2, 3, 4]


class Odd:
    """State that can be saved, and could not be read back."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def state_dict(self) -> dict[str, Any]:
        return {"value": self.value}

    def load_state_dict(self, state: Any) -> None: ...


def nested(depth: int) -> list[Any]:
    return [nested(depth - 1)] if depth else []


@pytest.mark.parametrize("value", [nested(220), 10**5000], ids=["nested", "huge"])
def test_a_state_that_no_restore_would_take_is_refused_on_every_rank(tmp_path: Path, value: Any) -> None:
    def body(program: Program) -> None:
        program.save(1, 10.0)
        program.numbers.state_dict = Odd(value).state_dict  # type: ignore[method-assign]
        with pytest.raises(NotSerializable, match=r"numbers\.value"):
            program.ckpt.save(2)
        del program.numbers.state_dict
        program.save(3, 30.0)

    results(tmp_path, body, 2, retention=Retention(1))
    assert found(tmp_path, 2) == (3, 30.0)
