"""Random colours of cloth, and colours that go with another. All are RGB triples in 0..1."""

import colorsys

import numpy as np

from .grids import Grid

NEUTRALS = np.array(
    [
        [0.95, 0.95, 0.94],
        [0.90, 0.86, 0.78],
        [0.70, 0.70, 0.71],
        [0.42, 0.43, 0.45],
        [0.20, 0.20, 0.22],
        [0.11, 0.11, 0.13],
        [0.13, 0.18, 0.34],
        [0.55, 0.45, 0.34],
    ]
)


def luma(colour: Grid) -> float:
    return float(np.dot(colour, [0.299, 0.587, 0.114]))


def random_colour(rng: np.random.Generator, neutral: float = 0.4) -> Grid:
    """A cloth-like colour: a neutral with the given probability, else any hue."""
    if rng.random() < neutral:
        return np.clip(rng.choice(NEUTRALS) + rng.normal(0, 0.02, 3), 0.05, 0.97)
    saturation, value = rng.uniform(0.2, 0.85), rng.uniform(0.35, 0.95)
    return np.array(colorsys.hsv_to_rgb(rng.random(), saturation, value))


def contrasting(rng: np.random.Generator, colour: Grid, gap: float) -> Grid:
    """A colour whose brightness differs by at least `gap` (at most 0.4), so
    that the two stay apart in a grey picture too."""
    while True:
        other = random_colour(rng)
        if abs(luma(other) - luma(colour)) >= gap:
            return other


def tone(colour: Grid, gap: float) -> Grid:
    """The same hue, lighter or darker by `gap`, whichever has room."""
    if luma(colour) < 0.5:
        return np.clip(colour + gap, 0, 1)
    return np.clip(colour - gap, 0, 1)


def to_bytes(colour: Grid) -> tuple[int, int, int]:
    return tuple(round(255 * float(channel)) for channel in np.clip(colour, 0, 1))
