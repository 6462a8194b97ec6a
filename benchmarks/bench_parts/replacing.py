"""What a new result may take the place of: not one that is unfinished, unless that is said."""

from __future__ import annotations

from pathlib import Path

from .arguments import UsageError
from .records import NAME, Records, read_records
from .resume import is_complete


def check_replaceable(out: Path, benchmark: str) -> None:
    """Pass where there is nothing, a complete result, or one in which nothing was measured.

    Raises:
        UsageError: what is in `out` would be lost.
    """
    try:
        if not (out / NAME).exists() or not (out / NAME).stat().st_size:
            return
        records = read_records(out)
    except (OSError, ValueError) as error:
        raise UsageError(f"--out {out}: {error}; pass another --out, or --overwrite") from None
    if is_complete(records) or not _has_measured(records):
        return
    made = records[0].get("benchmark", benchmark)
    ways = "pass another --out, or --overwrite"
    if made == benchmark:
        ways = "--resume goes on with it, --overwrite begins anew in its place"
    raise UsageError(f"--out {out} holds an unfinished result of dtk bench {made}; {ways}")


def _has_measured(records: Records) -> bool:
    """Whether there is a part of a round, or a run of `dtk bench verdict`, which has none."""
    return any("round" in record or record["kind"] == "run" for record in records)
