"""How a garment is shown, and which neckline and front it has."""

from dataclasses import dataclass

import numpy as np

from .colours import random_colour
from .grids import Grid
from .traits import Traits

SKINS = np.array(
    [
        [0.96, 0.80, 0.69],
        [0.87, 0.67, 0.53],
        [0.70, 0.49, 0.36],
        [0.48, 0.32, 0.23],
        [0.32, 0.21, 0.16],
    ]
)

DUMMIES = np.array([[0.93, 0.92, 0.90], [0.80, 0.72, 0.60], [0.30, 0.30, 0.32], [0.66, 0.66, 0.68]])

# The displays of a garment that neither a person nor a dummy fills.
NOBODY_INSIDE = ("flat", "hanger")


@dataclass(frozen=True)
class Style:
    display: str
    neckline: str
    front: str
    rolled: bool
    trim: Grid
    skin: Grid


def random_style(rng: np.random.Generator, traits: Traits) -> Style:
    """A display, and a neckline and a front that go with a collar or without one."""
    display = rng.choice(["flat", "hanger", "worn", "dummy"], p=[0.28, 0.2, 0.37, 0.15])
    if traits.collar:
        neckline = rng.choice(["shirt", "polo", "round", "camp"], p=[0.45, 0.25, 0.13, 0.17])
        odds = [0.5, 0.25, 0.1, 0.15]
    else:
        neckline = rng.choice(["crew", "vee", "scoop", "turtle", "hood"], p=[0.3, 0.29, 0.12, 0.14, 0.15])
        odds = [0.22, 0.13, 0.13, 0.52]
    return Style(
        display=str(display),
        neckline=str(neckline),
        front=str(rng.choice(["buttons", "placket", "zip", "closed"], p=odds)),
        rolled=rng.random() < 0.5,
        trim=random_colour(rng),
        skin=rng.choice(DUMMIES if display == "dummy" else SKINS),
    )
