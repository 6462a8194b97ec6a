"""Images as one PNG, side by side."""

from __future__ import annotations

from pathlib import Path

import torch
from torchvision.utils import save_image


def save_grid(images: torch.Tensor, path: Path, columns: int = 8, scale: int = 3) -> None:
    """Images of shape (number, channels, height, width), from -1 to 1; each pixel as scale x scale."""
    path.parent.mkdir(parents=True, exist_ok=True)
    large = images.detach().float().cpu().repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    unfinished = path.with_name(f".{path.name}")
    save_image(large, unfinished, format="png", nrow=columns, normalize=True, value_range=(-1, 1))
    unfinished.replace(path)
