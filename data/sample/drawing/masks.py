"""Masks: grey pictures of where a piece lies on the canvas."""

import numpy as np
from PIL import Image, ImageFilter

from .grids import Grid


def window(mask: Image.Image, margin: int = 0) -> tuple[slice, slice]:
    """The box around what a mask covers, to work on no more than that."""
    left, top, right, bottom = mask.getbbox() or (0, 0, 0, 0)
    return slice(max(0, top - margin), bottom + margin), slice(max(0, left - margin), right + margin)


def blurred(mask: Image.Image, reach: float) -> Grid:
    """The mask, softened by a share of its side; done small, as it holds no detail."""
    small = mask.reduce(4).filter(ImageFilter.GaussianBlur(reach * mask.width / 4))
    return np.asarray(small.resize(mask.size, Image.Resampling.BILINEAR)) / 255.0
