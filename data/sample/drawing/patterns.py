"""Cloth patterns that are computed from the coordinates.

A pattern makes a painter: a function of two coordinate grids (u across the
cloth, v along it, in units of the canvas side) that returns an RGB grid, so
that a sleeve can carry the pattern turned with it.
"""

from collections.abc import Callable

import numpy as np

from .colours import contrasting, random_colour, tone
from .grids import Grid, blend

Painter = Callable[[Grid, Grid], Grid]


def plain(rng: np.random.Generator, base: Grid) -> Painter:
    return lambda u, v: np.broadcast_to(base, (*u.shape, 3))


def fade(rng: np.random.Generator, base: Grid) -> Painter:
    """A dip-dyed cloth or, when the step is hard, a two-colour block."""
    second = contrasting(rng, base, 0.2)
    middle, soft = rng.uniform(0.4, 0.62), rng.choice([0.004, 0.25])
    return lambda u, v: blend(base, second, np.clip((v - middle) / soft + 0.5, 0, 1))


def stripes(rng: np.random.Generator, base: Grid, widest: float = 0.13) -> Painter:
    """Parallel bars of any direction, from pin-stripes to wide blocks, often faint."""
    turn = np.deg2rad(rng.choice([0, 90, 45, -45], p=[0.48, 0.3, 0.11, 0.11]) + rng.uniform(-5, 5))
    period = np.exp(rng.uniform(np.log(0.034), np.log(widest)))
    share = rng.uniform(0.1, 0.6)
    gap = rng.uniform(0.08, 0.125) if rng.random() < 0.8 else rng.uniform(0.125, 0.34)
    if period * share < 0.014:
        # Thin lines need more contrast than wide bars to be seen at all.
        share, gap = max(share, 0.006 / period), gap + 0.1
    second = tone(base, gap) if rng.random() < 0.7 else contrasting(rng, base, min(gap, 0.4))
    accent = tone(second, gap) if rng.random() < 0.2 else None

    def paint(u: Grid, v: Grid) -> Grid:
        phase = (u * np.sin(turn) + v * np.cos(turn)) / period
        rgb = blend(base, second, band(phase, share, 0.003 / period))
        if accent is not None:
            rgb = blend(rgb, accent, band(phase + 0.5, 0.14, 0.003 / period))
        return rgb

    return paint


def chest_stripes(rng: np.random.Generator, base: Grid) -> Painter:
    """Stripes across the chest only, narrow enough for several of them."""
    middle, zone = rng.uniform(0.4, 0.5), rng.uniform(0.22, 0.32)
    bars = stripes(rng, base, widest=0.06)
    return lambda u, v: blend(base, bars(u, v), np.abs(v - middle) < zone / 2)


def checks(rng: np.random.Generator, base: Grid) -> Painter:
    """Plaid, gingham or window-pane: bars across bars."""
    turn = np.deg2rad(rng.choice([0, 45], p=[0.8, 0.2]) + rng.uniform(-4, 4))
    period, share = rng.uniform(0.034, 0.13), rng.uniform(0.12, 0.6)
    strong, weak = rng.uniform(0.5, 0.9), rng.uniform(0.35, 0.5)
    second = contrasting(rng, base, 0.22)
    accent = random_colour(rng) if rng.random() < 0.4 else second

    def paint(u: Grid, v: Grid) -> Grid:
        across = (u * np.cos(turn) + v * np.sin(turn)) / period
        along = (v * np.cos(turn) - u * np.sin(turn)) / period
        rgb = blend(base, second, strong * band(across, share, 0.05))
        rgb = blend(rgb, second, weak * band(along, share, 0.05))
        rgb = blend(rgb, accent, band(across + 0.5, 0.08, 0.05))
        return blend(rgb, accent, band(along + 0.5, 0.08, 0.05))

    return paint


def dots(rng: np.random.Generator, base: Grid) -> Painter:
    """Polka dots, evenly spread or closer together within their rows."""
    period, radius = rng.uniform(0.045, 0.11), rng.uniform(0.22, 0.34)
    narrow = rng.choice([1.0, 0.6])
    second = contrasting(rng, base, 0.2)

    def paint(u: Grid, v: Grid) -> Grid:
        row = np.floor(v / period)
        x = (u / (period * narrow) + 0.5 * (row % 2)) % 1 - 0.5
        y = v / period % 1 - 0.5
        return blend(base, second, np.clip((radius - np.hypot(x, y / narrow)) / 0.08 + 0.5, 0, 1))

    return paint


def diamonds(rng: np.random.Generator, base: Grid) -> Painter:
    """Argyle or chess-board."""
    period, tall = rng.uniform(0.06, 0.16), rng.uniform(1.0, 1.7)
    second = contrasting(rng, base, 0.18)
    turn = rng.choice([0.0, np.pi / 4])

    def paint(u: Grid, v: Grid) -> Grid:
        x, y = u / period, v / (period * tall)
        across, along = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
        product = np.sin(2 * np.pi * across) * np.sin(2 * np.pi * along)
        return blend(base, second, np.clip(product * 8 + 0.5, 0, 1))

    return paint


def band(phase: Grid, share: float, soft: float) -> Grid:
    """1 within the middle `share` of each period of `phase`, soft at its edges."""
    distance = np.abs(phase % 1.0 - 0.5)
    return np.clip((share / 2 - distance) / soft + 0.5, 0, 1)
