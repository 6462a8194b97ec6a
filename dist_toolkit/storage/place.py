"""From a path or a URL to a storage."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from dist_toolkit.errors import ConfigError
from dist_toolkit.storage.base import Storage
from dist_toolkit.storage.local import LocalStorage
from dist_toolkit.storage.retry import bound_from

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_ONE_SLASH = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):/(?!/)(.*)", re.DOTALL)
_PACKAGES = {
    "s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs", "abfss": "adlfs",
    "memory": "",
}  # fmt: skip
"""Schemes of stores that put an object as a whole, which the commit needs, and what fsspec needs for each."""
_S3_REQUESTS = 3
"""How often s3fs itself sends one request: a part of a large upload, say. Ours is the bound around it."""


def is_url(place: str | Path) -> bool:
    """Whether this is `scheme://...` and not a path."""
    return isinstance(place, str) and _URL.fullmatch(place) is not None


def open_storage(place: str | Path) -> Storage:
    """A directory (a path or `file://`), or a prefix in an object store (`s3://bucket/run`). Opens no connection.

    A `~` at the start of a path is the user's home.

    Raises:
        ConfigError: an unknown scheme, a package that is missing, a URL without a place, or with one slash.
    """
    if not str(place):
        raise ConfigError("'' is no place for checkpoints; pass a directory ('.' for this one) or a URL")
    match = _URL.fullmatch(place) if isinstance(place, str) else None
    if match is None:
        if isinstance(place, Path) and place.parts and re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]+:", place.parts[0]):
            raise ConfigError(f"Path({str(place)!r}) has lost a slash of a URL; pass the URL as a string")
        _refuse_one_slash(str(place))
        return LocalStorage(_home(place))
    scheme = match[1].lower()
    if scheme == "file":
        return LocalStorage(_local_path(str(place), match[2]))
    if scheme not in _PACKAGES:
        raise ConfigError(
            f"{place}: {scheme}:// is no place for checkpoints; there are file, {', '.join(_PACKAGES)}, and paths"
        )
    if not match[2].strip("/"):
        raise ConfigError(f"{place} names no place; write {scheme}://BUCKET/PATH")
    from dist_toolkit.storage.objects import ObjectStorage

    filesystem = _filesystem(str(place), scheme)
    return ObjectStorage(filesystem, filesystem._strip_protocol(place), str(place), bound_from(os.environ))


def _refuse_one_slash(place: str) -> None:
    """`s3:/bucket` would be a directory named `s3:`."""
    match = _ONE_SLASH.fullmatch(place)
    if match is not None and match[1].lower() in ("file", *_PACKAGES):
        meant = f"{match[1]}:///{match[2]}" if match[1].lower() == "file" else f"{match[1]}://{match[2]}"
        raise ConfigError(f"{place} has lost a slash: write {meant} (or ./{place}, if a directory has that name)")


def _home(place: str | Path) -> Path:
    try:
        return Path(place).expanduser()
    except RuntimeError as error:  # no such user
        raise ConfigError(f"{str(place)!r} is no place for checkpoints: {error}") from None


def _local_path(place: str, rest: str) -> Path:
    host, slash, path = rest.partition("/")
    if host not in ("", "localhost") or not slash:
        raise ConfigError(f"{place}: write file:///PATH, with three slashes, or the path alone")
    return Path(unquote(slash + path))


def _filesystem(place: str, scheme: str) -> Any:
    """The one of fsspec; without a cache of listings, since other programs write there too."""
    package = _PACKAGES[scheme]
    try:
        import fsspec
    except ImportError:
        raise ConfigError(f"{place}: {scheme}:// needs the package fsspec: pip install fsspec") from None
    try:
        kind = fsspec.get_filesystem_class(scheme)
    except ImportError as error:
        extra = "dist-toolkit[s3]" if package == "s3fs" else package
        raise ConfigError(
            f"{place}: {scheme}:// needs the package {package}: pip install '{extra}' ({error})"
        ) from None
    options: dict[str, Any] = {"use_listings_cache": False, "skip_instance_cache": True}
    if package == "s3fs":
        told = fsspec.config.conf.get(scheme, {}).get("config_kwargs", {})
        options["config_kwargs"] = {"retries": {"total_max_attempts": 1, "mode": "standard"}, **told}
    filesystem = kind(**options)
    if package == "s3fs":
        filesystem.retries = _S3_REQUESTS
    return filesystem
