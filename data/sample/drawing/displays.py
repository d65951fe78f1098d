"""What shows the garment: a hanger, a dummy or a person."""

import numpy as np

from .canvas import Canvas
from .colours import random_colour
from .cuts import Cut
from .fabrics import Fabric
from .openings import neckline_curve
from .outlines import Outline, bezier, ellipse
from .patterns import plain, stripes
from .styles import Style

METAL, WOOD = np.array([0.45, 0.45, 0.47]), np.array([0.55, 0.38, 0.22])


def draw_support(canvas: Canvas, cut: Cut, style: Style) -> None:
    """What holds the garment where no person does."""
    if style.display == "hanger":
        draw_hanger(canvas, cut)
    if style.display == "dummy":
        draw_stand(canvas)


def draw_hanger(canvas: Canvas, cut: Cut) -> None:
    y = cut.neck_y
    hook = [(0.03 * np.sin(a), y - 0.11 - 0.03 * np.cos(a)) for a in np.linspace(-1.6, 3.1, 20)]
    canvas.line([*hook, (0, y - 0.06), (0, y - 0.01)], METAL, 0.01)
    for hand in (-1, 1):
        end = (hand * cut.shoulder * 0.93, y + cut.slope + 0.012)
        canvas.line([(0, y - 0.012), end], WOOD, 0.022)


def draw_stand(canvas: Canvas) -> None:
    """The pole and the foot of a dummy."""
    canvas.line([(0, 0.6), (0, 0.99)], METAL, 0.018)
    canvas.solid(ellipse(0, 0.985, 0.1, 0.014), METAL)


def draw_wearer(canvas: Canvas, cut: Cut, style: Style) -> None:
    """The neck of whoever is inside, and for a living wearer head and trousers."""
    y, neck = cut.neck_y, cut.neck * 0.72
    throat = [(-neck, y - 0.1), (neck, y - 0.1), (cut.neck * 0.98, y + 0.005)]
    canvas.solid([*throat, *neckline_curve(cut, style), (-cut.neck * 0.98, y + 0.005)], style.skin)
    if style.display == "dummy":
        canvas.disc(0, y - 0.1, neck, style.skin * 0.85, tall=0.3)
        return
    draw_head(canvas, cut, style, throat)
    draw_legs(canvas, cut)


def draw_head(canvas: Canvas, cut: Cut, style: Style, throat: Outline) -> None:
    """Hair, some of it long, around a face; long hair lies behind the throat."""
    rng, y = canvas.rng, cut.neck_y
    hair = rng.choice([0.12, 0.25, 0.5]) * np.array([1.0, 0.75, 0.5])
    long_hair = rng.random() < 0.3
    canvas.disc(0, y - 0.13, 0.075, hair, tall=1.2)
    if long_hair:
        canvas.solid(ellipse(0, y - 0.08, 0.083, 0.11), hair)
        canvas.solid([*throat, (0, y + cut.depth), (-cut.neck * 0.98, y + 0.005)], style.skin)
    canvas.solid(ellipse(0, y - 0.115, 0.06, 0.078), style.skin, shadow=0.3)
    right, left = (0.066, y - 0.125), (-0.066, y - 0.125)
    fringe = bezier(right, (rng.uniform(-0.05, 0.05), y - 0.2), left)
    canvas.solid([*bezier(left, (0, y - 0.3), right), *fringe], hair)


def draw_legs(canvas: Canvas, cut: Cut) -> None:
    """Trousers, some of them striped: the labels speak of the garment above."""
    colour = random_colour(canvas.rng)
    pattern = stripes if canvas.rng.random() < 0.45 else plain
    cloth = Fabric(colour, pattern(canvas.rng, colour), busy=False)
    hip, top = cut.chest * 0.86, min(0.62, cut.hem_y - 0.08)
    for hand in (-1, 1):
        leg = [(0, top), (hand * hip, top), (hand * hip * 0.95, 1.0), (hand * 0.012, 1.0)]
        canvas.cloth(leg, cloth)
