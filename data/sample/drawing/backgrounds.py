"""What stands behind a garment."""

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from .colours import random_colour, to_bytes
from .grids import Grid, blend, smooth_noise
from .patterns import checks, dots, stripes
from .tiles import flowers


def wall(rng: np.random.Generator, width: int, height: int) -> Grid:
    """A plain or slowly changing backdrop."""
    first = random_colour(rng, 0.5)
    second = np.clip(first + rng.uniform(-0.2, 0.2), 0, 1)
    y, x = np.mgrid[0:height, 0:width] / max(width, height)
    angle = rng.uniform(0, 2 * np.pi)
    rgb = blend(first, second, np.clip(x * np.cos(angle) + y * np.sin(angle), 0, 1))
    return rgb + 0.05 * (smooth_noise(rng, (height, width), (7, 7))[..., None] - 0.5)


def wallpaper(rng: np.random.Generator, width: int, height: int) -> Grid:
    """A patterned backdrop; mostly stripes, which say nothing of the garment."""
    base = random_colour(rng, 0.5)
    pattern = rng.choice([stripes, checks, dots, flowers], p=[0.7, 0.1, 0.1, 0.1])
    v, u = np.mgrid[0:height, 0:width] / min(width, height)
    return pattern(rng, base)(u * 0.8, v * 0.8)


def planks(rng: np.random.Generator, width: int, height: int) -> Grid:
    """Wooden boards with a grain along them."""
    upright = rng.random() < 0.5
    rows, columns = (width, height) if upright else (height, width)
    base = np.array([0.62, 0.45, 0.29]) * rng.uniform(0.5, 1.45) + rng.uniform(-0.04, 0.04, 3)
    count = int(rng.integers(3, 8))
    board = np.minimum(np.arange(rows) * count // rows, count - 1)
    grain = smooth_noise(rng, (rows, columns), (rows // 6, 5))
    grain = grain + 0.5 * smooth_noise(rng, (rows, columns), (rows // 2, 9))
    light = 1 + 0.22 * (grain - 0.75) + rng.uniform(-0.1, 0.1, count)[board][:, None]
    gaps = np.diff(board, prepend=0) != 0
    light[np.convolve(gaps, np.ones(3), "same") > 0] *= 0.55
    rgb = base * light[..., None]
    return rgb.transpose(1, 0, 2) if upright else rgb


def room(rng: np.random.Generator, width: int, height: int) -> Grid:
    """A wall with a floor, a skirting board and some furniture."""
    picture = Image.fromarray(np.uint8(np.clip(wall(rng, width, height), 0, 1) * 255))
    pen = ImageDraw.Draw(picture)
    floor = int(height * rng.uniform(0.68, 0.9))
    pen.rectangle([0, floor, width, height], fill=to_bytes(random_colour(rng)))
    pen.rectangle([0, floor, width, floor + height // 40], fill=to_bytes(random_colour(rng, 1.0)))
    for _ in range(rng.integers(1, 5)):
        left, top = rng.uniform(-0.1, 0.85) * width, rng.uniform(-0.1, 0.6) * height
        right, bottom = left + rng.uniform(0.12, 0.4) * width, top + rng.uniform(0.15, 0.5) * height
        frame, edge = to_bytes(random_colour(rng)), max(3, width // 60)
        pen.rectangle([left, top, right, bottom], fill=frame)
        pen.rectangle(
            [left + edge, top + edge, right - edge, bottom - edge],
            fill=to_bytes(random_colour(rng)),
        )
        if rng.random() < 0.4:
            pen.line([(left + right) / 2, top, (left + right) / 2, bottom], fill=frame, width=edge)
    return np.asarray(picture.filter(ImageFilter.GaussianBlur(rng.uniform(0, width / 80)))) / 255.0


def outdoors(rng: np.random.Generator, width: int, height: int) -> Grid:
    """Out-of-focus leaves and lights."""
    picture = Image.new("RGB", (width, height), to_bytes(random_colour(rng, 0.1)))
    pen = ImageDraw.Draw(picture)
    for _ in range(rng.integers(12, 40)):
        x, y = rng.uniform(0, width), rng.uniform(0, height)
        pen.circle((x, y), width * rng.uniform(0.03, 0.16), fill=to_bytes(random_colour(rng, 0.15)))
    return np.asarray(picture.filter(ImageFilter.GaussianBlur(width / rng.uniform(18, 50)))) / 255.0


def wardrobe(rng: np.random.Generator, width: int, height: int) -> Grid:
    """A rail with other clothes seen edge-on."""
    picture = Image.fromarray(np.uint8(np.clip(wall(rng, width, height), 0, 1) * 255))
    pen = ImageDraw.Draw(picture)
    rail, x = height * rng.uniform(0.04, 0.14), -0.05 * width
    while x < width:
        wide, colour = width * rng.uniform(0.04, 0.13), random_colour(rng)
        top, bottom = rail + height * 0.07, height * rng.uniform(0.65, 1.0)
        pen.line([x + wide / 2, rail, x + wide / 2, top], fill=(90, 90, 95), width=max(2, width // 150))
        shoulders = [(x, top + wide / 2), (x + wide / 2, top), (x + wide, top + wide / 2)]
        outline = to_bytes(colour * 0.7)
        pen.polygon([*shoulders, (x + wide, bottom), (x, bottom)], fill=to_bytes(colour), outline=outline)
        x += wide * rng.uniform(1.0, 1.8)
    pen.rectangle([0, rail, width, rail + height / 70], fill=(120, 115, 110))
    return np.asarray(picture.filter(ImageFilter.GaussianBlur(width / rng.uniform(90, 300)))) / 255.0


BACKGROUNDS = {
    wall: 0.2,
    wallpaper: 0.4,
    planks: 0.12,
    room: 0.12,
    outdoors: 0.08,
    wardrobe: 0.08,
}


def random_background(rng: np.random.Generator, width: int, height: int) -> Grid:
    paint = rng.choice(list(BACKGROUNDS), p=list(BACKGROUNDS.values()))
    return np.clip(paint(rng, width, height), 0, 1)
