"""The first record of a benchmark, made up; each adds its options."""

from typing import Any

MACHINE: dict[str, Any] = {
    "kind": "machine",
    "started": "2026-01-02 03:04 UTC",
    "cpu": "Example CPU",
    "cores": 2,
    "memory_gib": 8.0,
    "system": "Linux x86_64",
    "python": "3.11.7",
    "torch": "2.14.1",
    "dist_toolkit": "0.1.0",
    "environment": {},
    "commit": "0123456789ab",
    "uncommitted_changes": False,
}
