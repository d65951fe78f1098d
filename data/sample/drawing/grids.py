"""Grids of numbers or colours that cover a picture."""

import numpy as np
from PIL import Image

Grid = np.ndarray


def blend(first: Grid, second: Grid, weight: Grid) -> Grid:
    return first + (second - first) * weight[..., None]


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], cells: tuple[int, int]) -> Grid:
    """Cloudy noise in 0..1: a coarse random grid enlarged smoothly."""
    coarse = Image.fromarray(rng.random(cells, dtype=np.float32))
    return np.asarray(coarse.resize(shape[::-1], Image.Resampling.BICUBIC))
