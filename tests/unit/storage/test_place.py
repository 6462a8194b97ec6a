"""From a path or a URL to a storage, or to a clear refusal."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import fsspec
import pytest

from dist_toolkit.errors import ConfigError
from dist_toolkit.storage import LocalStorage, is_url, open_storage


def test_paths_and_file_urls_are_directories(tmp_path: Path) -> None:
    for place in (tmp_path, str(tmp_path), f"file://{tmp_path}", f"file://localhost{tmp_path}"):
        storage = open_storage(place)
        assert isinstance(storage, LocalStorage)
        assert storage.root == str(tmp_path)
    assert open_storage("~/run").root == str(Path.home() / "run")
    for odd in ("./s3:/b", "runs/s3:/b", "x:/b", "s3:b"):
        assert isinstance(open_storage(odd), LocalStorage)
    assert is_url("s3://b/run")
    assert not is_url("runs/demo")
    assert not is_url(Path("s3://b"))


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("s4://bucket/run", "s4:// is no place for checkpoints; there are file, s3"),
        ("https://host/run", "https:// is no place for checkpoints"),
        ("sftp://host/run", "sftp:// is no place"),
        ("s3://", "names no place; write s3://BUCKET/PATH"),
        ("file://runs/demo", "write file:///PATH, with three slashes"),
        ("", "pass a directory"),
        ("~nobody-of-this-name/run", "is no place for checkpoints: "),
        ("s3:/bucket/run", r"s3:/bucket/run has lost a slash: write s3://bucket/run \(or \./s3:/bucket/run, if"),
        ("GS:/bucket", "write GS://bucket"),
        ("file:/runs", "write file:///runs"),
        (Path("s3://bucket/run"), "has lost a slash of a URL; pass the URL as a string"),
    ],
)
def test_what_cannot_be_used_is_refused(place: str | Path, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        open_storage(place)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(scheme: str) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec, "get_filesystem_class", missing)
    with pytest.raises(ConfigError, match=r"s3:// needs the package s3fs: pip install 'dist-toolkit\[s3\]'"):
        open_storage("s3://bucket/run")
    with pytest.raises(ConfigError, match="gs:// needs the package gcsfs: pip install 'gcsfs'"):
        open_storage("gs://bucket/run")
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(ConfigError, match="needs the package fsspec"):
        open_storage("memory://run")


def test_neither_fsspec_nor_torch_is_loaded_for_a_directory() -> None:
    code = """
import sys
from dist_toolkit.storage import open_storage
from dist_toolkit.checkpoint.tool import app
open_storage("runs/demo")
print([name for name in ("fsspec", "torch", "s3fs", "asyncio") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"
