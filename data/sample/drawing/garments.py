"""A whole garment, piece by piece."""

import numpy as np
from PIL import Image

from .arms import draw_arm
from .bodies import body_outline, draw_back, draw_front
from .canvas import Canvas
from .cuts import random_cut
from .displays import draw_support, draw_wearer
from .distractors import draw_distractors
from .fabrics import random_fabric
from .logos import draw_logo
from .necklines import draw_neckline
from .styles import NOBODY_INSIDE, random_style
from .traits import Traits


def draw_garment(rng: np.random.Generator, traits: Traits, side: int) -> Image.Image:
    """One garment with the given traits on a transparent square."""
    canvas, cut, style = Canvas(rng, side), random_cut(rng, traits), random_style(rng, traits)
    fabric = random_fabric(rng, traits.striped)
    draw_support(canvas, cut, style)
    draw_back(canvas, cut, style, fabric)
    if style.display not in NOBODY_INSIDE:
        draw_wearer(canvas, cut, style)
    body = body_outline(cut, style)
    canvas.cloth(body, fabric)
    draw_front(canvas, cut, style, fabric)
    draw_distractors(canvas, cut, fabric, traits)
    for hand in (-1, 1):
        draw_arm(canvas, cut, style, fabric, hand)
    draw_neckline(canvas, cut, style, fabric, traits.collar)
    if traits.logo:
        draw_logo(canvas, cut, fabric)
    return canvas.image()
