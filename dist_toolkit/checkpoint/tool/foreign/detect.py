"""Whose checkpoint a path is, by the names of files alone."""

from __future__ import annotations

from pathlib import Path

from dist_toolkit.checkpoint.layout import MANIFEST, parse_dir

_FILES = (".pt", ".pth", ".bin", ".ckpt", ".tar")
_DEEPSPEED = ("*_optim_states.pt", "*mp_rank_*_model_states.pt")


def detect(path: str) -> str | None:
    """`torch`, `dcp` or `deepspeed` where that is certain; None: ours, or nothing that is known."""
    given = Path(path)
    if given.is_file():
        return "torch" if given.suffix in _FILES else None
    if not given.is_dir() or (given / MANIFEST).exists():
        return None
    if any(parse_dir(child.name) is not None for child in given.iterdir()):
        return None
    if (given / ".metadata").is_file():
        return "dcp"
    return "deepspeed" if is_deepspeed(given) or is_deepspeed(latest(given)) else None


def is_deepspeed(folder: Path | None) -> bool:
    """Whether the files of one save of DeepSpeed's are in it."""
    return folder is not None and any(next(folder.glob(pattern), None) is not None for pattern in _DEEPSPEED)


def latest(folder: Path) -> Path | None:
    """The folder in it that DeepSpeed's file `latest` names, if there is such a file and folder."""
    try:
        tag = (folder / "latest").read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None
    found = folder / tag
    return found if tag and found.is_dir() else None
