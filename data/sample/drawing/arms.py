"""Arms: their outline, the skin, the sleeve and its cuff."""

import numpy as np

from .canvas import Canvas
from .colours import tone
from .cuts import Cut
from .fabrics import Fabric
from .outlines import Outline
from .patterns import plain
from .styles import NOBODY_INSIDE, Style


def limb(cut: Cut, hand: int, share: float, width: float) -> tuple[Outline, np.ndarray]:
    """Outline of the first `share` of an arm, and its end point."""
    angles = cut.arms[0 if hand < 0 else 1]
    tip = np.array([cut.shoulder, cut.neck_y + cut.slope])
    pit = np.array([cut.chest, cut.neck_y + cut.slope + cut.armhole])
    start, lengths = (tip + pit) / 2, np.array([0.21, 0.21])
    rows = [(tip, pit)]
    reach = share * lengths.sum()
    middle = start
    for angle, length in zip(angles, lengths, strict=True):
        step = min(reach, length)
        if step <= 0:
            break
        along = np.array([np.sin(angle), np.cos(angle)])
        across = np.array([along[1], -along[0]])
        for part in np.linspace(0.35, 1, 4) * step:
            done = np.linalg.norm(rows[-1][0] - tip) / lengths.sum()
            half = width * (1 - 0.38 * min(1.0, done))
            centre = middle + along * part
            rows.append((centre + across * half, centre - across * half))
        middle, reach = middle + along * step, reach - step
    outline = [*(row[0] for row in rows), *(row[1] for row in reversed(rows))]
    return [(hand * x, y) for x, y in outline], middle * [hand, 1]


def draw_arm(canvas: Canvas, cut: Cut, style: Style, fabric: Fabric, hand: int) -> None:
    """Skin first where somebody is inside, then the sleeve and its cuff."""
    if style.display not in NOBODY_INSIDE:
        outline, wrist = limb(cut, hand, 1.0, 0.036)
        canvas.solid(outline, style.skin, shadow=0.3)
        canvas.disc(wrist[0], wrist[1] + 0.012, 0.027, style.skin, tall=1.25)
    if cut.sleeve == 0:
        return
    angle = hand * cut.arms[0 if hand < 0 else 1][0]
    origin = (hand * cut.shoulder, cut.neck_y + cut.slope)
    width = 0.052 * cut.loose
    outline, _ = limb(cut, hand, cut.sleeve, width)
    canvas.cloth(outline, fabric, turn=angle, origin=origin)
    draw_cuff(canvas, cut, style, fabric, outline)


def draw_cuff(canvas: Canvas, cut: Cut, style: Style, fabric: Fabric, outline: Outline) -> None:
    """A band across the end of the sleeve; a thick one where it is rolled up."""
    half = len(outline) // 2
    outer, inner = np.array(outline[half - 1]), np.array(outline[half])
    back = np.array(outline[half - 2]) - outer
    back = back / np.linalg.norm(back)
    rolled = style.rolled and cut.sleeve < 0.85
    depth = 0.034 if rolled else 0.018
    wide = (outer - inner) * (0.09 if rolled else 0.0)
    band = [outer + wide, inner - wide, inner - wide + back * depth, outer + wide + back * depth]
    cloth = fabric
    if rolled or cut.sleeve > 0.85:
        # The base stays the garment's, as the seams are drawn in it.
        cloth = Fabric(fabric.base, plain(canvas.rng, tone(fabric.base, 0.06)), busy=False)
    canvas.cloth([tuple(point) for point in band], cloth, shadow=0.25)
