"""Light on a rounded body and on the folds of a cloth."""

import numpy as np
from PIL import Image

from .grids import Grid, smooth_noise
from .masks import blurred, window


def edge_light(mask: Image.Image, reach: float) -> Grid:
    """Light of a rounded body, in the mask's box: full inside, dimmer near its edge."""
    return np.minimum(1.06, 0.6 + 0.5 * blurred(mask, reach)[window(mask)])


def folds(rng: np.random.Generator, side: int) -> tuple[Grid, Grid]:
    """A height field of creases and the light that falls on it from one side."""
    shape, depth = (side, side), rng.uniform(0.25, 0.85)
    height = 0.5 * smooth_noise(rng, shape, (4, 6)) + 0.3 * smooth_noise(rng, shape, (6, 16))
    height = height + 0.2 * smooth_noise(rng, shape, (22, 14))
    down, right = np.gradient(height)
    slope = right * rng.choice([-1, 1]) + 0.6 * down
    weave = rng.normal(0, rng.uniform(0.005, 0.03), shape)
    return height, np.clip(1 + depth * 0.1 * side * slope + weave, 0.6, 1.3)
