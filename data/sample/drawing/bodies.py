"""The body of a garment: its back, its outline and what runs along its front."""

import numpy as np

from .canvas import Canvas
from .colours import tone
from .cuts import Cut
from .fabrics import Fabric
from .grids import Grid
from .openings import neckline_bottom, neckline_curve
from .outlines import Outline, bezier, ellipse, mirror
from .styles import Style


def draw_back(canvas: Canvas, cut: Cut, style: Style, fabric: Fabric) -> None:
    """The inside of the back, seen through the neck opening, and a hood."""
    y, inside = cut.neck_y, fabric.base * 0.55
    if style.neckline == "hood":
        canvas.cloth(ellipse(0, y - 0.012, cut.neck + 0.075, 0.085), fabric)
        canvas.solid(ellipse(0, y - 0.01, cut.neck + 0.03, 0.058), inside)
    back = bezier((-cut.neck, y), (0, y + 0.02), (cut.neck, y)) + neckline_curve(cut, style)
    canvas.solid(back, inside)


def body_outline(cut: Cut, style: Style) -> Outline:
    tip = (cut.shoulder, cut.neck_y + cut.slope)
    pit = (cut.chest, cut.neck_y + cut.slope + cut.armhole)
    side = bezier(pit, (cut.waist, 0.5 * (pit[1] + cut.hem_y)), (cut.hem, cut.hem_y))
    right = [*bezier(tip, (cut.chest * 0.93, 0.5 * (tip[1] + pit[1])), pit), *side]
    hem = bezier((cut.hem, cut.hem_y), (0, cut.hem_y + 2 * cut.bow), (-cut.hem, cut.hem_y))
    # From the left neck point round the hem back to it, then along the neckline.
    return [*right, *hem, *mirror(right), *reversed(neckline_curve(cut, style))]


def draw_front(canvas: Canvas, cut: Cut, style: Style, fabric: Fabric) -> None:
    """What runs down the middle, and sometimes a seam along the hem."""
    top, bottom = neckline_bottom(cut, style), cut.hem_y + cut.bow
    dark = fabric.base * 0.5
    if style.front == "buttons":
        draw_buttons(canvas, style, dark, top, bottom, gap=0.075)
    if style.front == "placket":
        draw_buttons(canvas, style, dark, top, top + 0.13, gap=0.045)
    if style.front == "zip":
        canvas.line([(0, top), (0, bottom)], dark, 0.014)
        canvas.line([(0, top), (0, bottom)], np.array([0.75, 0.75, 0.72]), 0.005)
    if canvas.rng.random() < 0.5:
        y = cut.hem_y - 0.02
        canvas.line(bezier((cut.hem, y), (0, y + 2 * cut.bow), (-cut.hem, y)), dark, 0.003, 0.7)


def draw_buttons(canvas: Canvas, style: Style, dark: Grid, top: float, bottom: float, gap: float) -> None:
    """A strip between two seams, with buttons `gap` apart."""
    for x in (0.014, -0.014):
        canvas.line([(x, top), (x, bottom)], dark, 0.003, 0.8)
    for y in np.arange(top + 0.03, bottom - 0.02, gap):
        canvas.disc(0, y, 0.0075, tone(style.trim, 0.1))
