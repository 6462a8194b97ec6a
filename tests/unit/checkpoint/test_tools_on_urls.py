"""`dtk ckpt` on URLs: the same answers as on a directory, from a real S3 server."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from dist_toolkit.storage import open_storage
from tests.s3_server import BUCKET, S3Server
from tests.unit.checkpoint.made_up import VALUES, model, whole, write

pytestmark = pytest.mark.usefixtures("s3_process")


def upload(folder: Path, url: str) -> None:
    storage = open_storage(url)
    for name in open_storage(folder).files():
        storage.write_file(name, [(folder / name).read_bytes()])


@pytest.fixture
def url(s3: S3Server, tmp_path: Path) -> str:
    """A run with two checkpoints, and the same in tmp_path."""
    write(tmp_path, 10, [model()], values=VALUES, metrics={"accuracy": 0.5})
    write(tmp_path, 20, [model(fill=2), {"rng.1": whole(5)}], values=VALUES, metrics={"accuracy": 0.25})
    url = f"s3://{BUCKET}/{uuid.uuid4().hex}/run"
    upload(tmp_path, url)
    return url


def test_the_answers_are_those_on_a_directory(url, tmp_path, ckpt):
    for words in (["ls"], ["show"], ["show", "--step", "10"], ["verify"], ["diff", "--step", "10", "--step", "20"]):
        here, there = ckpt(words[0], tmp_path, *words[1:]), ckpt(words[0], url, *words[1:])
        assert there.out == here.out.replace("ROOT", url)
        assert there.code == here.code
    assert ckpt("show", f"{url}/step-00000010").out == ckpt("show", url, "--step", "10").out
    assert ckpt("diff", url, tmp_path).code == 0
    file_url = f"file://{tmp_path}"
    assert ckpt("ls", file_url).out.replace(file_url, "ROOT") == ckpt("ls", tmp_path).out


def test_weights_are_converted_from_a_url(url, tmp_path, ckpt):
    for place, out in ((url, "there.safetensors"), (tmp_path, "here.safetensors")):
        assert ckpt("convert", place, tmp_path / out).code == 0
    assert (tmp_path / "there.safetensors").read_bytes() == (tmp_path / "here.safetensors").read_bytes()


def test_damage_and_what_was_not_committed(url, ckpt):
    storage = open_storage(url)
    good = storage.read_bytes("step-00000020/rank-00001.safetensors")
    storage.replace_file("step-00000020/rank-00001.safetensors", good[:-1] + b"x")
    storage.write_file("step-00000030/rank-00000-0123456789abcdef.safetensors", [b"x" * 1000])
    storage.remove_file("step-00000010/rank-00000.safetensors")
    rows = ckpt("ls", url, "--json").json["checkpoints"]
    assert [(row["step"], row["state"], row["damage"]) for row in rows] == [
        (30, "uncommitted", None), (20, "committed", None), (10, "damaged", "rank-00000.safetensors is missing"),
    ]  # fmt: skip
    answer = ckpt("verify", url)
    assert answer.code == 1
    assert "rng.1" in answer.out


def test_prune_deletes_and_refuses_where_a_run_saves(url, ckpt):
    storage = open_storage(url)
    storage.replace_file(".lock", b"process 7 on elsewhere\n0123\n")
    refused = ckpt("prune", url, "--keep-last", "1", "--yes")
    assert refused.code == 2
    assert f"process 7 on elsewhere (so says {url}/.lock; delete it if that program has ended)" in refused.err
    assert storage.read_bytes(".lock").startswith(b"process 7"), "the run is not disturbed"
    storage.remove_file(".lock")
    assert ckpt("prune", url, "--keep-last", "1", "--yes").code == 0
    assert storage.list() == ["step-00000020"]


def test_what_is_no_place_of_checkpoints(url, s3, ckpt):
    for place, words in (
        (url.rpartition("/")[0], f"did you mean {url}?"),
        (f"{url}/nothing", "holds nothing; pass the URL that the run gave"),
        ("s4://bucket/run", "s4:// is no place for checkpoints"),
        ("s3://no-such-bucket/run", "the bucket does not exist"),
    ):
        answer = ckpt("ls", place)
        assert answer.code == 2
        assert words in answer.err
    s3.fail("GET", "list-type", 403, 99, "AccessDenied")
    answer = ckpt("ls", url)
    assert answer.code == 2
    assert f"listing {url}: refused" in answer.err


def test_nothing_is_converted_to_a_url(tmp_path, ckpt):
    write(tmp_path, 10, [model()])
    answer = ckpt("convert", tmp_path, "s3://bucket/model.safetensors")
    assert answer.code == 2
    assert "convert writes to this machine's files only" in answer.err
