"""A glance at a record: the head that a decode gives, and the same refusals."""

from __future__ import annotations

import json
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dist_toolkit.checkpoint import catalog, heads
from dist_toolkit.checkpoint.catalog import committed_checkpoints
from dist_toolkit.checkpoint.manifest import Chunk, FileEntry, Manifest, TensorEntry, body_of, decode, digest, head_of
from dist_toolkit.errors import CheckpointCorrupt
from dist_toolkit.storage import LocalStorage

FILE = "rank-00000.safetensors"


def record(step: int = 3, metrics: dict[str, float] | None = None, values: object = None, by: str = "me") -> Manifest:
    chunk = Chunk(FILE, 8, 16, (0,), (2,), "d")
    return Manifest(
        step, 1, "2026-01-01", "t", {FILE: FileEntry(16, 8, "h")}, {"w": TensorEntry("F32", (2,), (chunk,))},
        {"own": values}, metrics or {}, {"by": by},
    )  # fmt: skip


def signed(body: str) -> bytes:
    """A record of this body with a right digest, as somebody may write who edits it."""
    return f'{{"format": 1, "digest": "xxh3_128:{digest(body.encode())}", "body": {body}}}\n'.encode()


@given(
    st.integers(0, 2**62),
    st.dictionaries(st.text(), st.floats(allow_nan=False)),
    st.recursive(st.text() | st.integers(-9, 9), lambda x: st.lists(x) | st.dictionaries(st.text('ab,\n"'), x)),
    st.text(),
)  # fmt: skip
def test_it_is_the_head_of_what_a_decode_gives(step: int, metrics: dict[str, float], values: object, by: str) -> None:
    written = record(step, metrics, values, by)
    head = head_of(body_of(written.encode(), "m"))
    assert head == Manifest(step, 1, "2026-01-01", "t", {}, {}, {}, metrics, {"by": by})


def test_every_changed_byte_is_seen() -> None:
    whole = record(metrics={"loss": 0.5}).encode()
    for place in range(len(whole)):
        for change in (1, 0x20, 0x80):
            other = whole[:place] + bytes([whole[place] ^ change]) + whole[place + 1 :]
            with patch.object(heads, "_known", {}), pytest.raises(CheckpointCorrupt):
                heads.glance(other, "m")


@pytest.mark.parametrize(
    ("old", "new"),
    [('"step": 3,', '"step": true,'), ('"step": 3,\n', ""), ('"step": 3,', '"step": 3, "step": 4,'),
     ('{\n"step"', '{"step"'), ('"metrics": {}', '"metrics": {"a": "b"}'), (',\n"values": {', ',"values": {')],
)  # fmt: skip
def test_a_head_that_is_laid_out_otherwise_is_decoded(old: str, new: str) -> None:
    """A record that was edited, and signed again."""
    body = body_of(record().encode(), "m").decode()
    assert body.count(old) == 1
    edited = signed(body.replace(old, new))
    with patch.object(heads, "_known", {}):
        try:
            wanted: object = decode(edited, "m").step
        except CheckpointCorrupt as error:
            wanted = str(error)
        try:
            seen: object = heads.glance(edited, "m").step
        except CheckpointCorrupt as error:
            seen = str(error)
    assert seen == wanted


def test_two_records_of_a_step_are_decoded_before_one_is_chosen(tmp_path: Path) -> None:
    """The one under its own name was edited so that no restore would take it; its predecessor counts."""
    for folder, manifest in (("step-00000003", record()), ("step-00000003.old", record(by="the one before"))):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "manifest.json").write_bytes(manifest.encode())
    path = tmp_path / "step-00000003" / "manifest.json"
    path.write_bytes(signed(json.dumps({**json.loads(path.read_bytes())["body"], "files": {}}, indent=0)))
    (found,) = committed_checkpoints(LocalStorage(tmp_path), look=catalog.glance)
    assert found.folder == "step-00000003.old"
    assert found.manifest is not None
