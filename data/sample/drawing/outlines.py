"""Outlines of pieces, as points on a square canvas.

A point is (x, y) in units of the canvas side: x from -0.5 to 0.5 around the
middle of the garment, y from 0 at the top to 1 at the bottom.
"""

import numpy as np

Outline = list[tuple[float, float]]


def bezier(start, control, end, count: int = 14) -> Outline:
    """A quadratic curve between two points, drawn towards a control point."""
    t = np.linspace(0, 1, count)[:, None]
    start, control, end = (np.asarray(point, float) for point in (start, control, end))
    return [tuple(point) for point in (1 - t) ** 2 * start + 2 * t * (1 - t) * control + t**2 * end]


def mirror(points: Outline) -> Outline:
    """The same outline on the other side, walked backwards."""
    return [(-x, y) for x, y in reversed(points)]


def ellipse(x: float, y: float, wide: float, tall: float) -> Outline:
    angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    return list(zip(x + wide * np.cos(angles), y + tall * np.sin(angles), strict=True))
