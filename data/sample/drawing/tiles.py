"""Cloth patterns that are drawn once on a tile, which then repeats."""

import numpy as np
from PIL import Image, ImageDraw

from .colours import contrasting, to_bytes, tone
from .grids import Grid, blend, smooth_noise
from .patterns import Painter


def flowers(rng: np.random.Generator, base: Grid) -> Painter:
    """Scattered blossoms, read from a tile that repeats."""
    side, count = 256, int(rng.integers(10, 26))
    tile = Image.new("RGB", (side, side), to_bytes(base))
    pen = ImageDraw.Draw(tile)
    petals = [to_bytes(contrasting(rng, base, 0.15)) for _ in range(3)]
    for x, y in rng.uniform(0, side, (count, 2)):
        size, colour = rng.uniform(7, 17), petals[rng.integers(3)]
        for angle in np.arange(5) * 2 * np.pi / 5 + rng.uniform(0, 1):
            pen.circle((x + size * np.cos(angle), y + size * np.sin(angle)), size * 0.62, fill=colour)
        pen.circle((x, y), size * 0.5, fill=petals[0])
    return tiled(np.asarray(tile) / 255.0, rng.uniform(0.3, 0.6))


def clouds(rng: np.random.Generator, base: Grid) -> Painter:
    """Camouflage when the steps are hard, tie-dye when they are soft."""
    second, third = contrasting(rng, base, 0.15), tone(base, 0.2)
    soft = rng.uniform(0.02, 0.3)
    # Mirrored tiling hides the seam of the tile.
    noise = [mirrored(smooth_noise(rng, (128, 128), (8, 8))) for _ in range(2)]
    rgb = blend(base, second, np.clip((noise[0] - 0.55) / soft + 0.5, 0, 1))
    rgb = blend(rgb, third, np.clip((noise[1] - 0.6) / soft + 0.5, 0, 1))
    return tiled(rgb, rng.uniform(0.5, 1.0))


def heather(rng: np.random.Generator, base: Grid) -> Painter:
    """A speckled yarn."""
    speckle = np.clip(rng.normal(0, rng.uniform(0.04, 0.11), (256, 256, 1)), -0.25, 0.25)
    return tiled(np.clip(base + speckle, 0, 1), rng.uniform(0.35, 0.6))


def mirrored(tile: Grid) -> Grid:
    tile = np.concatenate([tile, tile[::-1]])
    return np.concatenate([tile, tile[:, ::-1]], axis=1)


def tiled(tile: Grid, width: float) -> Painter:
    """Repeat an RGB tile that is `width` canvas sides wide."""
    side = tile.shape[0]

    def paint(u: Grid, v: Grid) -> Grid:
        return tile[(v / width * side).astype(int) % side, (u / width * side).astype(int) % side]

    return paint
