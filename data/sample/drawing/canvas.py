"""The canvas, on which pieces of cloth and skin are laid one over the other."""

import numpy as np
from PIL import Image, ImageDraw

from .fabrics import Fabric
from .grids import Grid, blend
from .light import edge_light, folds
from .masks import blurred, window
from .outlines import Outline, ellipse


class Canvas:
    """An RGBA picture under construction, with the folds of its cloth and the light on them."""

    def __init__(self, rng: np.random.Generator, side: int):
        self.rng, self.side = rng, side
        self.rgb = np.zeros((side, side, 3))
        self.alpha = np.zeros((side, side))
        self.y, self.x = np.mgrid[0:side, 0:side] / side
        self.x = self.x - 0.5
        self.fold_height, self.light = folds(rng, side)

    def pixels(self, points: Outline) -> list[tuple[float, float]]:
        return [((x + 0.5) * self.side, y * self.side) for x, y in points]

    def area(self, points: Outline) -> Image.Image:
        mask = Image.new("L", (self.side, self.side))
        ImageDraw.Draw(mask).polygon(self.pixels(points), fill=255)
        return mask

    def lay(self, mask: Image.Image, rgb: Grid, opacity: float = 1.0) -> None:
        """Put a colour, or a grid of colours as large as the mask's box, where the mask is."""
        box = window(mask)
        weight = np.asarray(mask)[box] / 255.0 * opacity
        self.rgb[box] = blend(self.rgb[box], rgb, weight)
        self.alpha[box] = np.maximum(self.alpha[box], weight)

    def cast_shadow(self, mask: Image.Image, strength: float, reach: float = 0.01) -> None:
        """Darken what already lies around a piece that is about to be laid."""
        box = window(mask, margin=round(3 * reach * self.side))
        self.rgb[box] *= 1 - strength * blurred(mask, reach)[box][..., None]

    def line(self, points: Outline, colour: Grid, width: float = 0.004, opacity: float = 1.0) -> None:
        mask = Image.new("L", (self.side, self.side))
        ImageDraw.Draw(mask).line(self.pixels(points), fill=255, width=max(1, round(width * self.side)), joint="curve")
        self.lay(mask, colour, opacity)

    def solid(self, points: Outline, colour: Grid, shadow: float = 0.0) -> None:
        """A rounded plain body such as skin: darker towards its edges."""
        mask = self.area(points)
        self.cast_shadow(mask, shadow)
        self.lay(mask, colour * edge_light(mask, 0.02)[..., None])

    def disc(self, x: float, y: float, radius: float, colour: Grid, tall: float = 1.0) -> None:
        self.solid(ellipse(x, y, radius, radius * tall), colour, shadow=0.3)

    def cloth(self, points: Outline, fabric: Fabric, turn: float = 0.0, origin=(0.0, 0.0), shadow: float = 0.4) -> None:
        """A piece of cloth whose pattern is turned about `origin` and bent by the folds."""
        mask = self.area(points)
        box = window(mask)
        x, y = self.x[box] - origin[0], self.y[box] - origin[1]
        bend = 0.035 * (self.fold_height[box] - 0.5)
        u = x * np.cos(turn) - y * np.sin(turn) + origin[0] + bend
        v = x * np.sin(turn) + y * np.cos(turn) + origin[1] + bend
        light = self.light[box] * edge_light(mask, 0.018)
        self.cast_shadow(mask, shadow)
        self.lay(mask, np.clip(fabric.paint(u, v) * light[..., None], 0, 1))
        self.line([*points, points[0]], fabric.base * 0.45, 0.003, 0.7)

    def image(self) -> Image.Image:
        rgba = np.dstack([np.clip(self.rgb, 0, 1), self.alpha])
        return Image.fromarray(np.uint8(rgba * 255 + 0.5), "RGBA")
