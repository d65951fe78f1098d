"""Collars: a stand behind the neck and two flaps over the front."""

import numpy as np

from .canvas import Canvas
from .cuts import Cut
from .fabrics import Fabric, plain_fabric
from .openings import neckline_bottom
from .outlines import Outline, bezier
from .styles import NOBODY_INSIDE, Style


def draw_collar(canvas: Canvas, cut: Cut, style: Style, fabric: Fabric) -> None:
    rng = canvas.rng
    cloth = collar_fabric(rng, style, fabric)
    rise = rng.uniform(0.012, 0.035)
    length, spread = rng.uniform(0.045, 0.085), rng.uniform(0.01, 0.06)
    if style.display in NOBODY_INSIDE:
        draw_collar_stand(canvas, cut, cloth, rise)
    flap = flap_outline(cut, style, rise, length, spread)
    for hand in (-1, 1):
        canvas.cloth([(hand * x, y) for x, y in flap], cloth, turn=hand * 0.6, shadow=0.55)


def collar_fabric(rng: np.random.Generator, style: Style, fabric: Fabric) -> Fabric:
    """The cloth of the garment, or a plain one."""
    if rng.random() < 0.35:
        return plain_fabric(rng, style.trim if rng.random() < 0.5 else fabric.base)
    return fabric


def draw_collar_stand(canvas: Canvas, cut: Cut, cloth: Fabric, rise: float) -> None:
    y, neck = cut.neck_y, cut.neck
    stand = bezier((-neck * 0.97, y), (0, y - rise * 2.4), (neck * 0.97, y))
    canvas.cloth([*stand, *bezier((neck, y), (0, y + 0.03), (-neck, y))], cloth)


def flap_outline(cut: Cut, style: Style, rise: float, length: float, spread: float) -> Outline:
    """The right flap, from the back of the neck down to the front and out."""
    y, neck, bottom = cut.neck_y, cut.neck, neckline_bottom(cut, style)
    top, front, outer = (neck * 0.9, y - rise), (0.004, bottom), (neck + 0.028, y + 0.026)
    inner_edge = bezier(top, (neck * 0.62, y + 0.55 * cut.depth), front)
    if style.neckline == "round":
        return inner_edge + bezier(front, (neck * 0.7 + spread, bottom + length * 1.5), outer)
    return [*inner_edge, front, (neck * 0.55 + spread, bottom + length * 0.6), outer]
