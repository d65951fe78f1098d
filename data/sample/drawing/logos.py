"""Logos: an emblem or a few letters, on a badge or straight on the cloth."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .arms import limb
from .canvas import Canvas
from .colours import contrasting, tone
from .cuts import Cut
from .fabrics import Fabric
from .grids import Grid
from .outlines import bezier, ellipse


def draw_logo(canvas: Canvas, cut: Cut, fabric: Fabric) -> None:
    """An emblem or a few letters on the chest or on an upper sleeve."""
    rng = canvas.rng
    size = rng.uniform(0.078, 0.105)
    hand = int(rng.choice([-1, 1]))
    if cut.sleeve > 0.3 and rng.random() < 0.15:
        _, centre = limb(cut, hand, 0.2, 0.05)
        x, y, size = centre[0], centre[1], 0.078
    else:
        x = rng.choice([hand * cut.chest * 0.48, 0.0], p=[0.7, 0.3])
        y = cut.neck_y + cut.slope + cut.armhole + rng.uniform(0.0, 0.04)
    ink = contrasting(rng, fabric.base, 0.22)
    plate = fabric.busy or rng.random() < 0.5
    if plate:
        draw_plate(canvas, x, y, size, ink)
        ink = contrasting(rng, ink, 0.25)
    draw_sign(canvas, x, y, size * (0.62 if plate else 1.0), ink)


def draw_plate(canvas: Canvas, x: float, y: float, size: float, colour: Grid) -> None:
    """The ground of a badge: a disc, a shield or a label."""
    half = size / 2
    right = bezier((x + half, y), (x + half, y + half), (x, y + half * 1.25))
    left = bezier((x, y + half * 1.25), (x - half, y + half), (x - half, y))
    top, bottom = y - half * 0.7, y + half * 0.7
    shapes = [
        ellipse(x, y, half, half),
        [(x - half, y - half), (x + half, y - half), *right, *left],
        [(x - half, top), (x + half, top), (x + half, bottom), (x - half, bottom)],
    ]
    outline = shapes[canvas.rng.integers(len(shapes))]
    canvas.solid(outline, colour, shadow=0.35)
    canvas.line([*outline, outline[0]], tone(colour, 0.3), 0.005)


def draw_sign(canvas: Canvas, x: float, y: float, size: float, ink: Grid) -> None:
    """Letters, a star or a pair of peaks."""
    kind = canvas.rng.choice(["letters", "star", "peaks"], p=[0.6, 0.25, 0.15])
    if kind == "star":
        angles, radii = np.arange(10) * np.pi / 5, np.tile([0.55, 0.23], 5) * size
        star = zip(x + radii * np.sin(angles), y - radii * np.cos(angles), strict=True)
        canvas.lay(canvas.area(list(star)), ink)
    elif kind == "peaks":
        shape = [(-0.55, 0.35), (-0.15, -0.4), (0.08, 0.0), (0.22, -0.2), (0.55, 0.35)]
        canvas.lay(canvas.area([(x + size * px, y + size * py) for px, py in shape]), ink)
    else:
        draw_letters(canvas, x, y, size, ink)


def draw_letters(canvas: Canvas, x: float, y: float, size: float, ink: Grid) -> None:
    count = int(canvas.rng.integers(1, 4))
    text = "".join(canvas.rng.choice(list("ABDEGHKLMNRSXZ"), count))
    mask = Image.new("L", (canvas.side, canvas.side))
    # A letter is about 0.7 times as wide as its font is high.
    font = ImageFont.load_default(size=size * canvas.side * min(1.3, 1.5 / count))
    (place,) = canvas.pixels([(x, y)])
    ImageDraw.Draw(mask).text(place, text, fill=255, font=font, anchor="mm", stroke_width=canvas.side // 320)
    canvas.lay(mask, ink)
