"""Commit records edited by somebody who can compute the digest: an attacker, or a helpful person."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dist_toolkit.checkpoint.manifest import digest


def body_of(record: Path) -> Any:
    """The body of a record, to be edited."""
    return json.loads(record.read_bytes())["body"]


def signed(body: Any) -> bytes:
    """The record with this body (JSON-able, or the text itself), and a digest that fits."""
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    return f'{{"format": 1, "digest": "xxh3_128:{digest(text)}", "body": '.encode() + text + b"}\n"
