"""What edges the neck opening."""

from .canvas import Canvas
from .collars import draw_collar
from .colours import tone
from .cuts import Cut
from .fabrics import Fabric
from .openings import neckline_curve
from .outlines import bezier
from .styles import Style


def draw_neckline(canvas: Canvas, cut: Cut, style: Style, fabric: Fabric, collar: bool) -> None:
    if collar:
        draw_collar(canvas, cut, style, fabric)
    elif style.neckline == "turtle":
        draw_turtleneck(canvas, cut, fabric)
    else:
        draw_rib(canvas, cut, style, fabric)
    if style.neckline == "hood":
        draw_cords(canvas, cut, fabric)


def draw_turtleneck(canvas: Canvas, cut: Cut, fabric: Fabric) -> None:
    """A tube around the neck, and the crease where it folds over."""
    y, neck = cut.neck_y, cut.neck
    tube = [(-neck * 0.86, y - 0.06), (neck * 0.86, y - 0.06), (neck * 1.02, y + 0.012)]
    front = bezier((neck * 1.02, y + 0.012), (0, y + cut.depth * 1.3), (-neck * 1.02, y + 0.012))
    canvas.cloth([*tube, *front], fabric)
    crease = bezier((neck * 0.93, y - 0.02), (0, y + 0.025), (-neck * 0.93, y - 0.02))
    canvas.line(crease, fabric.base * 0.5, 0.004, 0.6)


def draw_rib(canvas: Canvas, cut: Cut, style: Style, fabric: Fabric) -> None:
    """A narrow knitted edge."""
    curve = neckline_curve(cut, style)
    colour = style.trim if canvas.rng.random() < 0.3 else tone(fabric.base, 0.08)
    canvas.line(curve, fabric.base * 0.45, 0.023)
    canvas.line(curve, colour, 0.018)


def draw_cords(canvas: Canvas, cut: Cut, fabric: Fabric) -> None:
    """The two strings that hang from a hood."""
    y = cut.neck_y
    for hand in (-1, 1):
        cord = bezier((hand * 0.03, y + 0.045), (hand * 0.05, y + 0.1), (hand * 0.035, y + 0.17))
        canvas.line(cord, tone(fabric.base, 0.35), 0.008)
