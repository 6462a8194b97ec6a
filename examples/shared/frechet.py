"""How far generated images are from real ones, as one number."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def frechet_distance(real: torch.Tensor, made: torch.Tensor, side: int = 8) -> float:
    """Between two sets of images (samples, channels, height, width), 0 for the same: of normal distributions of pixels.

    As the FID of Heusel et al. (2017), with the images, averaged to `side` x `side` pixels, in place of a network's
    features: |m - n|^2 + tr(C + D - 2 (CD)^(1/2)), where m, n are the means and C, D the covariances.
    """
    m, c = _moments(real, side)
    n, d = _moments(made, side)
    root = _square_root(c)
    of_both = _square_root(root @ d @ root)  # of the same trace as (CD)^(1/2), and symmetric
    return float((m - n).square().sum() + (c + d - 2 * of_both).trace())


def _moments(images: torch.Tensor, side: int) -> tuple[torch.Tensor, torch.Tensor]:
    pixels = F.adaptive_avg_pool2d(images.double(), side).flatten(1)
    return pixels.mean(0), torch.cov(pixels.T)


def _square_root(matrix: torch.Tensor) -> torch.Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.T
