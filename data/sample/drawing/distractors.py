"""Details of a garment that no label speaks of."""

import numpy as np

from .canvas import Canvas
from .colours import contrasting
from .cuts import Cut
from .fabrics import Fabric, plain_fabric
from .outlines import bezier
from .traits import Traits

GOLD = np.array([0.85, 0.68, 0.25])


def draw_distractors(canvas: Canvas, cut: Cut, fabric: Fabric, traits: Traits) -> None:
    rng, chest_y = canvas.rng, cut.neck_y + cut.slope + cut.armhole
    if rng.random() < 0.4 and not traits.logo:
        draw_chest_pocket(canvas, cut, fabric, chest_y)
    if rng.random() < 0.2:
        x = rng.choice([-1, 1]) * cut.chest * 0.55
        canvas.disc(x, chest_y - 0.06, 0.013, GOLD)
    if rng.random() < 0.2 and cut.hem_y > 0.75:
        draw_pocket_slits(canvas, cut, fabric)
    for _ in range(rng.integers(0, 4)):
        draw_crease(canvas, cut, fabric, chest_y)


def draw_chest_pocket(canvas: Canvas, cut: Cut, fabric: Fabric, chest_y: float) -> None:
    rng = canvas.rng
    middle = rng.choice([-1, 1]) * cut.chest * 0.5
    colour = contrasting(rng, fabric.base, 0.15)
    patch = plain_fabric(rng, colour) if rng.random() < 0.5 else fabric
    pocket = [(-0.045, -0.05), (0.045, -0.05), (0.045, 0.04), (0, 0.058), (-0.045, 0.04)]
    canvas.cloth([(middle + x, chest_y + y) for x, y in pocket], patch, shadow=0.2)


def draw_pocket_slits(canvas: Canvas, cut: Cut, fabric: Fabric) -> None:
    for hand in (-1, 1):
        slit = [(hand * 0.09, cut.hem_y - 0.17), (hand * 0.13, cut.hem_y - 0.07)]
        canvas.line(slit, fabric.base * 0.4, 0.006)


def draw_crease(canvas: Canvas, cut: Cut, fabric: Fabric, chest_y: float) -> None:
    rng = canvas.rng
    x, y = rng.uniform(-0.1, 0.1), rng.uniform(chest_y, cut.hem_y - 0.05)
    end = (x + rng.uniform(0.04, 0.1), y + rng.uniform(-0.04, 0.04))
    canvas.line(bezier((x, y), (x + 0.03, y + 0.01), end), fabric.base * 0.5, 0.004, 0.35)
