"""From stored square pictures to what the network sees, resolved from its weights and kept in model.pth.

PyTorch is imported where it is used: prediction with an ONNX model reads `Preprocessing` and must do without it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Preprocessing:
    """`side` and `fit` are those of images.Frame; `mean` and `std` are for pixel values from 0 to 1."""

    side: int
    fit: str
    resolution: int
    center_crop: float  # share of the side that is kept for evaluation and prediction
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def seen(pictures: np.ndarray, how: Preprocessing) -> np.ndarray:
    """The centre crop (n, kept, kept, 3) of pictures (n, side, side, 3) that the network sees, not yet resized."""
    kept = round(how.side * how.center_crop)
    start = (how.side - kept) // 2
    return pictures[:, start : start + kept, start : start + kept]


def to_input(pictures: np.ndarray, how: Preprocessing) -> torch.Tensor:
    """Pictures (n, side, side, 3) uint8 -> centre crop, resized and normalised, (n, 3, resolution, resolution)."""
    import torch
    from torch.nn import functional

    batch = torch.from_numpy(np.ascontiguousarray(seen(pictures, how))).permute(0, 3, 1, 2).float()
    if batch.shape[-1] != how.resolution:
        size = (how.resolution, how.resolution)
        batch = functional.interpolate(batch, size, mode="bilinear", antialias=True, align_corners=False)
    return normalised(batch / 255, how)


def normalised(batch: torch.Tensor, how: Preprocessing) -> torch.Tensor:
    """Values from 0 to 1 of shape (..., 3, height, width) -> mean 0 and deviation 1 as the weights expect."""
    import torch

    mean = torch.tensor(how.mean).view(3, 1, 1)
    std = torch.tensor(how.std).view(3, 1, 1)
    return (batch - mean) / std
