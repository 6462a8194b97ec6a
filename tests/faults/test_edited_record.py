"""A commit record that was edited, with a digest that fits: refused without asking for memory, or true in itself."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dist_toolkit.checkpoint.manifest import Manifest, decode
from dist_toolkit.errors import CheckpointCorrupt, DistToolkitError
from tests.faults.program import found, results
from tests.faults.signed import body_of, signed

RECORD = "step-00000002/manifest.json"
LARGE = "numbers.tensors.large"
FILE = "rank-00000.safetensors"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Steps 1 and 2, saved by two ranks."""
    root = tmp_path_factory.mktemp("prepared")
    results(root, lambda program: [program.save(1, 10.0), program.save(2, 20.0)], 2, size=50)
    return root


class Memory:
    """Refuses tensors that are larger than any in the checkpoint."""

    def __init__(self) -> None:
        self.original = torch.empty

    def empty(self, *shape: Any, **options: Any) -> torch.Tensor:
        size = torch.Size(shape[0] if isinstance(shape[0], (tuple, list, torch.Size)) else shape)
        assert size.numel() <= 1 << 19, f"memory for {size} was asked for"
        return self.original(*shape, **options)


def chunk(body: Any) -> list[Any]:
    """[file, begin, end, offsets, sizes, digest] of the large tensor."""
    row: list[Any] = body["tensors"][LARGE]["chunks"][0]
    return row


def resize(body: Any, count: int) -> None:
    """Everything about the large tensor fits, and is enormous."""
    row = chunk(body)
    body["tensors"][LARGE]["shape"] = row[4] = [count]
    row[2] = row[1] + 4 * count
    body["files"][row[0]][0] = row[2]


def share_bytes(body: Any) -> None:
    """A thousand tensors in the bytes of one."""
    for number in range(1000):
        body["tensors"][f"numbers.tensors.more{number}"] = copy.deepcopy(body["tensors"][LARGE])


def rename_file(name: str) -> Callable[[Any], None]:
    def edit(body: Any) -> None:
        old = chunk(body)[0]
        body["files"][name] = body["files"].pop(old)
        for tensor in body["tensors"].values():
            for row in tensor["chunks"]:
                row[0] = name if row[0] == old else row[0]

    return edit


def put(*path: Any) -> Callable[[Any], None]:
    """Put the last of `path` where the others lead to."""
    *to, key, value = path

    def edit(body: Any) -> None:
        place = body
        for step in to:
            place = place[step]
        place[key] = value

    return edit


def nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


ROW = ("tensors", LARGE, "chunks", 0)
EDITS: dict[str, Callable[[Any], None]] = {
    **{f"file {name}": rename_file(name) for name in (
        "../rank-00000.safetensors", "/etc/passwd", "../../../../etc/passwd", "..", "", "rank-00000.safetensors/..",
        "rank-00000.safetensors\n", "rank-00000.safetensors\0", "RANK-00000.safetensors",
        "rank-" + 5 * "\u0660" + ".safetensors",
    )},
    **{f"huge {exponent}": lambda body, e=exponent: resize(body, 2**e) for exponent in (30, 50, 61, 62, 63, 100, 1000)},
    "huge and empty": put("tensors", LARGE, {"dtype": "F32", "shape": [0, 2**62, 2**62], "chunks": []}),
    "negative and empty": put("tensors", LARGE, {"dtype": "F32", "shape": [0, -5], "chunks": []}),
    "one file's bytes a thousand times": share_bytes,
    "a box twice": lambda body: body["tensors"][LARGE].update(
        shape=[100], chunks=[chunk(body), [*chunk(body)[:3], [50], *chunk(body)[4:]]]),
    **{f"{key}={value!r}"[:40]: put(key, value) for key in ("step", "world_size")
       for value in (-1, True, 2.0, float("nan"), "2", None, 2**63, 10**4000, [2])},
    "no ranks": put("world_size", 0),
    **{f"begin={value!r}"[:40]: put(*ROW, 1, value) for value in (-1, True, 0.5, float("nan"), None, "8", 2**70)},
    "begin as a float": lambda body: chunk(body).__setitem__(1, float(chunk(body)[1])),
    **{f"shape={value!r}"[:40]: put("tensors", LARGE, "shape", value)
       for value in ([50.0], [True], [-50], [[50]], "50", 50, None, {"50": 1}, [50, 2**63])},
    **{f"offsets={value!r}": put(*ROW, 3, value) for value in ([0.0], [False], [-1], [None], [])},
    **{f"dtype={value!r}": put("tensors", LARGE, "dtype", value) for value in ("F64", "X", None, ["F32"], "I8")},
    **{f"digest={value!r}": put(*ROW, 5, value) for value in ("", None, 0, [])},
    **{f"size={value!r}"[:40]: put("files", FILE, 0, value) for value in (-1, True, 1e300, None, 2**63, 0)},
    **{f"header={value!r}"[:40]: put("files", FILE, 1, value) for value in (-1, True, 2**62, 0.5)},
    **{f"metric={value!r}"[:40]: put("metrics", {"loss": value}) for value in (True, "1", None, 10**400)},
    **{f"values={value!r}"[:60]: put("values", "numbers", value) for value in (
        {"$tensor": "nothing"}, {"$tensor": ["x"]}, {"$float": "abc"}, {"$float": 3}, {"$tuple": 3}, {"$dict": [[1]]},
        {"$dict": [[[1], 2]]}, {"$else": 1}, nested(300), nested(900))},
    "nested beyond the parser": put("values", "numbers", "DEEP"),
}  # fmt: skip


FIT_IN_THEMSELVES = ("huge 30", "huge 50")
"""These are for the files to refuse."""


@pytest.mark.parametrize("edit", EDITS)
def test_edits_are_refused_by_name_and_without_memory(prepared: Path, edit: str) -> None:
    body = body_of(prepared / RECORD)
    EDITS[edit](body)
    data = signed(json.dumps(body).encode().replace(b'"DEEP"', b"[" * 10**5 + b"]" * 10**5))
    memory = Memory()
    with patch("torch.empty", memory.empty):
        if edit not in FIT_IN_THEMSELVES:
            with pytest.raises(CheckpointCorrupt, match=r"^step-2/manifest\.json: "):
                decode(data, "step-2/manifest.json")
    assert restored_with(prepared, data) == (1, 10.0)


TEXTS = {
    "a key twice": lambda text: text.replace(b'"step": 2', b'"step": 1, "step": 2'),
    "a tensor twice": lambda text: text.replace(b'"own.0.tensor": {', b'"own.0.tensor": {}, "own.0.tensor": {'),
    "not UTF-8": lambda text: text.replace(b"own.0", b"own\xff0"),
    "UTF-16": lambda text: text.decode().encode("utf-16"),
    "half": lambda text: text[: len(text) // 2],
    "nothing": lambda text: b"",
    "a very long number": lambda text: text.replace(b'"step": 2', b'"step": ' + b"9" * 5000),
}


@pytest.mark.parametrize("text", TEXTS)
def test_texts_that_are_no_body_are_refused(prepared: Path, text: str) -> None:
    body = TEXTS[text](json.dumps(body_of(prepared / RECORD)).encode())
    if text == "UTF-16":  # that is JSON as well: read alike, or refused
        assert decode(signed(body), "m").step == 2
        return
    with pytest.raises(CheckpointCorrupt):
        decode(signed(body), "m")


@pytest.mark.parametrize("version", [b"2", b"0", b"999999", b"9" * 5000, b'"1"', b"1.0", b"null", b"[" * 10**5])
def test_an_unknown_format_is_refused(prepared: Path, version: bytes) -> None:
    data = (prepared / RECORD).read_bytes().replace(b'"format": 1', b'"format": ' + version, 1)
    with pytest.raises(CheckpointCorrupt, match=r"format|not a manifest"):
        decode(data, "m")
    assert restored_with(prepared, data) == (1, 10.0)


NASTY = st.one_of(
    st.sampled_from(
        [None, True, False, -1, 0, 1, 2, 50, 0.5, float("nan"), float("inf"), 2**31, 2**63, 2**64, 10**400]
    ),
    st.sampled_from(["", "F32", "BOOL", FILE, "../x", LARGE, "own.0.tensor", "\ud800", "\0", "d" * 32]),
    st.sampled_from([[], {}, [0], [50], [0, 0], [[]], {"$tensor": LARGE}, {"$tuple": 1}]),
    st.integers(-(10**3), 10**3),
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path to every value in a JSON tree."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for key, item in inside for found in places(item, (*path, key)))]


@st.composite
def mutations(draw: st.DrawFn, body: Any, keep: tuple[str, ...] = ()) -> Any:
    """The body with one to three of its values replaced, removed, doubled, or exchanged for another of its values."""
    body = copy.deepcopy(body)
    for _ in range(draw(st.integers(1, 3))):
        *to, key = draw(st.sampled_from([path for path in places(body) if path and path[0] not in keep]))
        holder = body
        for step in to:
            holder = holder[step]
        kind = draw(st.sampled_from(["replace", "remove", "double", "exchange"]))
        if kind == "remove":
            del holder[key]
        elif kind == "double" and isinstance(holder, list):
            holder.append(copy.deepcopy(holder[key]))
        elif kind == "exchange":
            other = body
            for step in draw(st.sampled_from(places(body))):
                other = other[step]
            holder[key] = copy.deepcopy(other)
        else:
            holder[key] = copy.deepcopy(draw(NASTY))
    return body


@settings(max_examples=400)
@given(st.data())
def test_a_mutated_record_is_refused_or_consistent(prepared: Path, data: st.DataObject) -> None:
    body = data.draw(mutations(body_of(prepared / RECORD)))
    try:
        manifest = decode(signed(body), "m")
    except CheckpointCorrupt:
        return
    assert decode(manifest.encode(), "m") == manifest or "nan" in repr(body)
    assert_consistent(manifest)


def assert_consistent(manifest: Manifest) -> None:
    """By a slow and simple count: every element of every tensor is in one place of one file, in bytes of its own."""
    bytes_of: dict[str, set[int]] = {}
    for tensor in manifest.tensors.values():
        elements: list[tuple[int, ...]] = []
        for part in tensor.chunks:
            spans = [range(o, o + s) for o, s in zip(part.offsets, part.sizes, strict=True)]
            assert all(0 <= span.start <= span.stop <= n for span, n in zip(spans, tensor.shape, strict=True))
            elements += _cells(spans)
            used = set(range(part.begin, part.end))
            assert not used & bytes_of.setdefault(part.file, set())
            bytes_of[part.file] |= used
            assert 0 <= part.begin <= part.end <= manifest.files[part.file].size
        assert sorted(elements) == _cells([range(n) for n in tensor.shape])


def _cells(spans: list[range]) -> list[tuple[int, ...]]:
    cells: list[tuple[int, ...]] = [()]
    for span in spans:
        cells = [(*cell, i) for cell in cells for i in span]
    return cells


@settings(max_examples=100)
@given(st.data())
def test_a_mutated_record_never_stops_a_restore_with_a_surprise(prepared: Path, data: st.DataObject) -> None:
    """What it says of files and tensors: the old checkpoint, the new one, or an error that is meant for people."""
    body = data.draw(mutations(body_of(prepared / RECORD), keep=("values", "token", "created")))
    try:
        outcome = restored_with(prepared, signed(body))
    except DistToolkitError:
        return
    assert outcome == (1, 10.0) or outcome[1] == 20.0


def restored_with(prepared: Path, record: bytes) -> tuple[int, float]:
    """What a program restores where this is the record of step 2."""
    good = (prepared / RECORD).read_bytes()
    try:
        (prepared / RECORD).write_bytes(record)
        with patch("torch.empty", Memory().empty):
            outcome = found(prepared, size=50)
        assert outcome is not None
        return outcome
    finally:
        (prepared / RECORD).write_bytes(good)
