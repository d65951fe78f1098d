"""The shape of the neck opening."""

from .cuts import Cut
from .outlines import Outline, bezier, mirror
from .styles import Style


def neckline_curve(cut: Cut, style: Style) -> Outline:
    """The front edge of the neck opening, from right to left."""
    y, bottom = cut.neck_y, cut.neck_y + cut.depth
    if style.neckline in ("vee", "camp"):
        bottom += 0.06
    if style.neckline in ("crew", "scoop", "turtle", "hood"):
        control = y + cut.depth * (3.0 if style.neckline == "scoop" else 1.1)
        return bezier((cut.neck, y), (0, control), (-cut.neck, y), 24)
    right = bezier((cut.neck, y), (cut.neck * 0.6, y + 0.6 * (bottom - y)), (0, bottom))
    return right + mirror(right)[1:]


def neckline_bottom(cut: Cut, style: Style) -> float:
    return max(y for _, y in neckline_curve(cut, style))
