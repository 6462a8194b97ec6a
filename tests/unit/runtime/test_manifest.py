"""The commit record: what it refuses."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dist_toolkit.checkpoint.layout import parse_dir, step_dir
from dist_toolkit.checkpoint.manifest import Chunk, FileEntry, Manifest, TensorEntry, decode, digest
from dist_toolkit.checkpoint.sound import BITS
from dist_toolkit.errors import CheckpointCorrupt
from dist_toolkit.tensors import DTYPES

FILE = "rank-00000.safetensors"
CHUNK = Chunk(FILE, 100, 124, (0, 0), (2, 3), "d" * 32)
MANIFEST = Manifest(
    step=7, world_size=1, created="2026-01-01T00:00:00+00:00", token="t",
    files={FILE: FileEntry(124, 100, "h" * 32)},
    tensors={"model.w": TensorEntry("F32", (2, 3), (CHUNK,))}, values={"loader": {"epoch": 1}},
    metrics={"accuracy": 0.5}, producer={"torch": "2"},
)  # fmt: skip


def with_chunk(**changes: object) -> Manifest:
    return replace(MANIFEST, tensors={"model.w": TensorEntry("F32", (2, 3), (CHUNK._replace(**changes),))})


def test_decode_is_the_inverse_of_encode() -> None:
    assert decode(MANIFEST.encode(), "m") == MANIFEST


@given(st.data())
def test_any_flipped_bit_is_refused(data: st.DataObject) -> None:
    good = bytearray(MANIFEST.encode())
    bit = data.draw(st.integers(0, 8 * len(good) - 1))
    good[bit // 8] ^= 1 << (bit % 8)
    with pytest.raises(CheckpointCorrupt):
        decode(bytes(good), "m")


@given(st.data())
def test_any_truncation_is_refused(data: st.DataObject) -> None:
    good = MANIFEST.encode()
    with pytest.raises(CheckpointCorrupt):
        decode(good[: data.draw(st.integers(0, len(good) - 1))], "m")


def test_an_edit_is_refused_and_named() -> None:
    edited = MANIFEST.encode().replace(b'"step": 7', b'"step": 8')
    with pytest.raises(CheckpointCorrupt, match=r"manifest\.json: the manifest does not match its own digest"):
        decode(edited, "manifest.json")


def test_another_format_is_named() -> None:
    with pytest.raises(CheckpointCorrupt, match="checkpoint format 2; this version of dist-toolkit reads format 1"):
        decode(MANIFEST.encode().replace(b'"format": 1', b'"format": 2'), "m")


@pytest.mark.parametrize(
    "bad",
    [
        replace(MANIFEST, files={"../../etc/passwd": FileEntry(124, 100, "h")}),
        replace(MANIFEST, files={FILE: FileEntry(124, 100, "")}),
        replace(MANIFEST, files={FILE: FileEntry(124, 2**60, "h")}),
        replace(MANIFEST, files={FILE: FileEntry(124, -1, "h")}),
        replace(MANIFEST, files={FILE: FileEntry("124", 100, "h")}),
        replace(MANIFEST, tensors={"model.w": TensorEntry("F31", (2, 3), (CHUNK,))}),
        replace(MANIFEST, tensors={"model.w": TensorEntry("F64", (2, 3), (CHUNK,))}),
        replace(MANIFEST, tensors={"model.w": TensorEntry("F32", ("2", 3), (CHUNK,))}),
        replace(MANIFEST, step="7"),
        replace(MANIFEST, created=3),
        replace(MANIFEST, metrics={"accuracy": "0.5"}),
        replace(MANIFEST, tensors={"model.w": TensorEntry("F32", (4, 3), (CHUNK, CHUNK))}),
        with_chunk(digest=""),
        with_chunk(file="rank-00001.safetensors"),
        with_chunk(begin=0),
        with_chunk(end=2**60),
        with_chunk(offsets=(1, 0)),
        with_chunk(sizes=(1, 3)),
        with_chunk(sizes=(2**40, 2**40)),
    ],
)
def test_entries_that_point_elsewhere_are_refused(bad: Manifest) -> None:
    """Even with a digest that fits: a manifest is not believed because it is well signed."""
    with pytest.raises(CheckpointCorrupt):
        decode(bad.encode(), "m")


@pytest.mark.parametrize("body", ["[]", "{}", '{"files": 3}', "null", '{"files": {}, "tensors": {"a": 1}}'])
def test_well_formed_nonsense_is_refused(body: str) -> None:
    text = json.dumps(json.loads(body), sort_keys=True, indent=0)
    data = f'{{"format": 1, "digest": "xxh3_128:{digest(text.encode())}", "body": {text}}}\n'.encode()
    with pytest.raises(CheckpointCorrupt, match="malformed"):
        decode(data, "m")


def test_the_sizes_of_types_are_those_of_torch() -> None:
    assert {name: 8 * dtype.itemsize for name, dtype in DTYPES.items()} == BITS


def test_a_manifest_of_the_first_releases_is_read() -> None:
    """They were written with every value on a line of its own."""
    body = json.dumps(json.loads(MANIFEST.encode())["body"], sort_keys=True, indent=0)
    old = f'{{"format": 1, "digest": "xxh3_128:{digest(body.encode())}", "body": {body}}}\n'.encode()
    assert decode(old, "m") == MANIFEST


def test_a_person_finds_a_tensor_on_a_line_of_its_own() -> None:
    (line,) = [line for line in MANIFEST.encode().decode().splitlines() if "model.w" in line]
    assert '"dtype": "F32", "shape": [2, 3]' in line


@given(st.integers(0, 10**12))
def test_directory_names(step: int) -> None:
    assert parse_dir(step_dir(step)) == (step, "")
    assert parse_dir(step_dir(step) + ".tmp") == (step, ".tmp")
    assert parse_dir("x" + step_dir(step)) is None
