"""Draw the sample data set: pictures of garments, labelled and unlabelled.

    python data/sample/draw.py [--seed 0] [--out data/sample]

It writes, next to this file unless --out says otherwise,

- images/          480 labelled pictures, and one file that is cut off;
- unlabelled/      40 pictures to predict on;
- labels.txt       one row per picture: 1, 0 or NA for each attribute.

Three rows of the table cannot be used: two name a picture that does not exist,
one names the file that is cut off. Every picture is drawn from its own random
stream, so the same seed gives the same bytes.
"""

import argparse
from io import BytesIO
from pathlib import Path

import numpy as np
from drawing.backgrounds import random_background
from drawing.garments import draw_garment
from drawing.grids import Grid, smooth_noise
from drawing.traits import Traits
from PIL import Image, ImageFilter

LABELLED, UNLABELLED = 480, 40
RATES = Traits(striped=0.5, long_sleeve=0.82, collar=0.35, logo=0.08)
MISSING_CELLS = 0.09
CANVAS_SIDE = 640
# Rows of the table after which an unusable row stands, and the name it gives.
TRUNCATED = (117, "garment_0480.jpg")
ABSENT = [(238, "garment_0481.jpg"), (351, "garment_0482.jpg")]


def random_traits(rng: np.random.Generator) -> Traits:
    return Traits(*(bool(rng.random() < rate) for rate in RATES))


def picture_size(rng: np.random.Generator, small: bool) -> tuple[int, int]:
    """Width and height, either way up; the shorter side rules the garment."""
    # Small pictures are the more common ones, which also keeps the folder small.
    short = int(rng.triangular(150, 151, 180 if small else 330))
    long = min(420, int(short * rng.uniform(1.0, 1.35)))
    return (short, long) if rng.random() < 0.65 else (long, short)


def pose(rng: np.random.Generator, width: int, height: int) -> Grid:
    """Where the corners of the canvas come to lie: turned, sheared, in perspective."""
    turn, shear = np.deg2rad(rng.uniform(-20, 20)), rng.uniform(-0.1, 0.1)
    scale = min(width, height) * rng.uniform(0.95, 1.3)
    corners = np.array([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]])
    if rng.random() < 0.3:
        corners[:, 0] *= rng.uniform(0.88, 1.0)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    matrix = rotation @ [[1, shear], [0, 1]]
    corners = corners @ matrix.T + rng.uniform(-0.03, 0.03, (4, 2))
    return corners * scale + np.array([width, height]) / 2 + rng.uniform(-0.05, 0.05, 2) * min(width, height)


def project(image: Image.Image, corners: Grid, size: tuple[int, int]) -> Image.Image:
    """Map the image onto four corners; Pillow wants the way back, output to input."""
    side = image.width
    source = [(0, 0), (side, 0), (side, side), (0, side)]
    rows, values = [], []
    for (x, y), (u, v) in zip(corners, source, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        values += [u, v]
    return image.transform(size, Image.Transform.PERSPECTIVE, np.linalg.solve(rows, values), Image.Resampling.BICUBIC)


def place(rng: np.random.Generator, garment: Image.Image, width: int, height: int) -> Image.Image:
    """The garment in its pose, drawn larger and reduced for smooth edges."""
    factor = max(2, round(CANVAS_SIDE / min(width, height)))
    corners = pose(rng, width, height) * factor
    return project(garment, corners, (width * factor, height * factor)).reduce(factor)


def compose(rng: np.random.Generator, garment: Image.Image, width: int, height: int) -> Grid:
    """The garment before a background on which it casts a soft shadow."""
    layer = np.asarray(garment) / 255.0
    alpha = layer[..., 3:]
    reach = min(width, height) * rng.uniform(0.01, 0.04)
    soft = np.asarray(garment.getchannel("A").filter(ImageFilter.GaussianBlur(reach))) / 255.0
    shift = rng.integers(-1, 2, 2) * int(reach)
    background = random_background(rng, width, height)
    background = background * (1 - rng.uniform(0.15, 0.5) * np.roll(soft, shift, (0, 1))[..., None])
    return layer[..., :3] * alpha + background * (1 - alpha)


def expose(rng: np.random.Generator, rgb: Grid) -> Grid:
    """Light and camera: cast, uneven light, vignette, contrast, blur, noise."""
    height, width = rgb.shape[:2]
    rgb = rgb * (1 + rng.normal(0, 0.05, 3)) * rng.uniform(0.85, 1.25)
    rgb = rgb * (1 + rng.uniform(0, 0.5) * (smooth_noise(rng, (height, width), (3, 3))[..., None] - 0.5))
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    rgb = rgb * (1 - rng.uniform(0, 0.22) * (x**2 + y**2))[..., None]
    rgb = 0.5 + (rgb - 0.5) * rng.uniform(0.72, 1.1)
    blurred = to_image(rgb).filter(ImageFilter.GaussianBlur(max(0.0, rng.uniform(-0.4, 1.0))))
    noise = rng.normal(0, rng.uniform(0, 0.015), (height, width, 1))
    return np.asarray(blurred) / 255.0 + noise


def to_image(rgb: Grid) -> Image.Image:
    return Image.fromarray(np.uint8(np.clip(rgb, 0, 1) * 255 + 0.5))


def png_mode(index: int) -> str | None:
    """A few pictures are PNG files in a mode other than RGB."""
    return {31: "RGBA", 71: "L", 111: "P"}.get(index % 120)


def draw_picture(rng: np.random.Generator, traits: Traits, mode: str | None) -> Image.Image:
    garment = draw_garment(rng, traits, CANVAS_SIDE)
    width, height = picture_size(rng, small=mode is not None)
    layer = place(rng, garment, width, height)
    if mode == "RGBA":
        return layer
    picture = to_image(expose(rng, compose(rng, layer, width, height)))
    return picture.convert(mode) if mode else picture


def encode(rng: np.random.Generator, picture: Image.Image) -> bytes:
    buffer = BytesIO()
    if picture.mode == "RGB":
        picture.save(buffer, "JPEG", quality=int(rng.integers(60, 91)))
    else:
        picture.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def tokens(rng: np.random.Generator, traits: Traits) -> list[str]:
    """The labels as written: some unknown, never all."""
    while True:
        hidden = rng.random(len(traits)) < MISSING_CELLS
        if not hidden.all():
            return ["NA" if hide else str(int(value)) for value, hide in zip(traits, hidden, strict=True)]


def draw_example(seed: int, index: int) -> tuple[list[str], str, bytes]:
    """Labels, file ending and file content of one picture."""
    rng = np.random.default_rng([seed, index])
    traits = random_traits(rng)
    labels = tokens(rng, traits)
    mode = png_mode(index)
    content = encode(rng, draw_picture(rng, traits, mode))
    return labels, "png" if mode else "jpg", content


def write_labelled(seed: int, folder: Path) -> list[list[str]]:
    rows = []
    for index in range(LABELLED):
        labels, ending, content = draw_example(seed, index)
        name = f"garment_{index:04d}.{ending}"
        (folder / name).write_bytes(content)
        rows.append([name, *labels])
    return rows


def write_unlabelled(seed: int, folder: Path) -> None:
    for number in range(UNLABELLED):
        _, ending, content = draw_example(seed, LABELLED + 1 + number)
        (folder / f"unlabelled_{number:04d}.{ending}").write_bytes(content)


def unusable_rows(seed: int, folder: Path) -> list[tuple[int, list[str]]]:
    """Rows without a readable picture, each with its place in the table."""
    labels, _, content = draw_example(seed, LABELLED)
    place, name = TRUNCATED
    (folder / name).write_bytes(content[: len(content) // 2])
    absent = [(place, [name, *labels]) for place, name in ABSENT]
    return [(place, [name, *labels]), *absent]


def write_table(path: Path, rows: list[list[str]], extra: list[tuple[int, list[str]]]) -> None:
    # From the last place to the first, so that no insertion moves another.
    for place, row in sorted(extra, reverse=True):
        rows.insert(place, row)
    lines = [["image", *Traits._fields], *rows]
    path.write_text("".join(" ".join(line) + "\n" for line in lines))


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw the sample data set.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    args = parser.parse_args()
    images, unlabelled = args.out / "images", args.out / "unlabelled"
    images.mkdir(parents=True, exist_ok=True)
    unlabelled.mkdir(exist_ok=True)
    rows = write_labelled(args.seed, images)
    write_table(args.out / "labels.txt", rows, unusable_rows(args.seed, images))
    write_unlabelled(args.seed, unlabelled)


if __name__ == "__main__":
    main()
