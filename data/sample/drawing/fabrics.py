"""A cloth with its colour and pattern."""

from dataclasses import dataclass

import numpy as np

from .colours import random_colour
from .grids import Grid
from .patterns import Painter, checks, chest_stripes, diamonds, dots, fade, plain, stripes
from .tiles import clouds, flowers, heather

# How often a garment without stripes has each pattern.
UNSTRIPED = {
    plain: 0.13,
    heather: 0.08,
    checks: 0.41,
    dots: 0.13,
    diamonds: 0.07,
    flowers: 0.07,
    clouds: 0.05,
    fade: 0.06,
}


@dataclass(frozen=True)
class Fabric:
    """A cloth: its main colour, its pattern, and whether the pattern is busy."""

    base: Grid
    paint: Painter
    busy: bool


def plain_fabric(rng: np.random.Generator, colour: Grid) -> Fabric:
    return Fabric(colour, plain(rng, colour), busy=False)


def random_fabric(rng: np.random.Generator, striped: bool) -> Fabric:
    base = random_colour(rng)
    if striped:
        pattern = chest_stripes if rng.random() < 0.35 else stripes
        return Fabric(base, pattern(rng, base), busy=True)
    pattern = rng.choice(list(UNSTRIPED), p=list(UNSTRIPED.values()))
    return Fabric(base, pattern(rng, base), busy=pattern not in (plain, heather, fade))
