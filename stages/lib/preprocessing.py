"""From stored square pictures to what the network sees, resolved from its weights and kept in model.pth.

PyTorch is imported where it is used: prediction with an ONNX model reads `Preprocessing` and must do without it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

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


def parsed(content: Any) -> Preprocessing:
    """From what a model file says, which may be anything. ValueError names what is wrong."""
    expected = {item.name for item in fields(Preprocessing)}
    if not isinstance(content, dict) or set(content) != expected:
        raise ValueError(f"preprocessing must have {', '.join(sorted(expected))}")
    for name, high in (("side", 2048), ("resolution", 1024)):
        if not isinstance(content[name], int) or isinstance(content[name], bool) or not 1 <= content[name] <= high:
            raise ValueError(f"{name} of the preprocessing is {content[name]!r:.50}, not a whole number from 1 to {high}")
    if content["fit"] not in ("crop", "pad", "squash"):
        raise ValueError(f"fit of the preprocessing is {content['fit']!r:.50}")
    if not _number(content["center_crop"]) or not 0 < content["center_crop"] <= 1:
        raise ValueError(f"center_crop of the preprocessing is {content['center_crop']!r:.50}, not a share")
    if round(content["side"] * content["center_crop"]) < 1:
        raise ValueError("the preprocessing leaves nothing of a picture")
    for name in ("mean", "std"):
        values = content[name]
        if not isinstance(values, list | tuple) or len(values) != 3 or not all(map(_number, values)):
            raise ValueError(f"{name} of the preprocessing is {values!r:.50}, not three numbers")
    if min(content["std"]) <= 0:
        raise ValueError(f"std of the preprocessing is {content['std']!r:.50}, not above 0")
    return Preprocessing(**content | {name: tuple(content[name]) for name in ("mean", "std")})


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e6


def seen(pictures: np.ndarray, how: Preprocessing) -> np.ndarray:
    """The centre crop (n, kept, kept, 3) of pictures (n, side, side, 3) that the network sees, not yet resized."""
    kept = round(how.side * how.center_crop)
    start = (how.side - kept) // 2
    return pictures[:, start : start + kept, start : start + kept]


def to_input(pictures: np.ndarray, how: Preprocessing, device: torch.device | str = "cpu") -> torch.Tensor:
    """Pictures (n, side, side, 3) uint8 -> centre crop, resized and normalised, (n, 3, resolution, resolution).

    On the device, in the memory format channels_last, which convolutions like best.
    """
    import torch
    from torch.nn import functional

    batch = torch.from_numpy(np.ascontiguousarray(seen(pictures, how))).to(device).permute(0, 3, 1, 2)
    if batch.shape[-1] == how.resolution:
        batch = batch.float()
    else:
        # Plane by plane, which is how PyTorch resizes fastest.
        batch = batch.to(torch.float32, memory_format=torch.contiguous_format)
        size = (how.resolution, how.resolution)
        batch = functional.interpolate(batch, size, mode="bilinear", antialias=True, align_corners=False)
    scale, shift = (values.to(device).view(3, 1, 1) for values in map(torch.from_numpy, scale_and_shift(how)))
    return torch.addcmul(shift, batch, scale).contiguous(memory_format=torch.channels_last)


def scale_and_shift(how: Preprocessing) -> tuple[np.ndarray, np.ndarray]:
    """Two float32 arrays (3,): pixel values from 0 to 255, times the first, plus the second, are normalised."""
    mean, std = np.array(how.mean), np.array(how.std)
    return (1 / (255 * std)).astype(np.float32), (-mean / std).astype(np.float32)


def normalised(batch: torch.Tensor, how: Preprocessing) -> torch.Tensor:
    """Values from 0 to 1 of shape (..., 3, height, width) -> mean 0 and deviation 1 as the weights expect."""
    import torch

    mean = torch.tensor(how.mean).view(3, 1, 1)
    std = torch.tensor(how.std).view(3, 1, 1)
    return (batch - mean) / std
