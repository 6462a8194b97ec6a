"""The control groups of a process, v1 and v2: which there are, and what the tightest allows."""

from __future__ import annotations

from pathlib import Path

_NO_LIMIT = 1 << 60  # v1 says 2^63 less a page where there is none
_MEMORY = (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes"))  # v2, v1


def groups_of(controller: str, root: Path = Path("/"), pid: str = "self") -> list[Path]:
    """The folders of a process's group and of those above it, the innermost first; [] where there is none.

    Args:
        controller: of cgroup v1; '' for v2.
        root: below which /proc and /sys are.
    """
    try:
        lines = [line.split(":", 2) for line in (root / "proc" / pid / "cgroup").read_text().splitlines()]
    except OSError:
        return []
    base = root / "sys/fs/cgroup" / controller
    group = next((Path(line[2]) for line in lines if len(line) == 3 and controller in line[1].split(",")), None)
    return [base / str(folder).lstrip("/") for folder in (group, *group.parents)] if group else []


def tightest(controller: str, name: str, root: Path = Path("/")) -> int | None:
    """The least number in the files `name` of this process's groups, v2 or v1; None where none holds a number."""
    folders = (*groups_of("", root), *groups_of(controller, root))
    return min((number for folder in folders if (number := _number(folder / name)) is not None), default=None)


def memory_limit(root: Path = Path("/")) -> int | None:
    """Bytes that the tightest group of this process allows it and its neighbours; None without a limit."""
    least = (tightest("memory", limit, root) for limit, _ in _MEMORY)
    return min((limit for limit in least if limit is not None and limit < _NO_LIMIT), default=None)


def memory_left(root: Path = Path("/")) -> int | None:
    """Bytes until a group of this process is full, with its cache counted as used; None without a limit."""
    left = []
    for folder in (*groups_of("", root), *groups_of("memory", root)):
        for limit_name, used_name in _MEMORY:
            limit, used = _number(folder / limit_name), _number(folder / used_name)
            if limit is not None and used is not None and limit < _NO_LIMIT:
                left.append(max(0, limit - used))
    return min(left, default=None)


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
