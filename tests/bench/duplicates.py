"""How many copies the near-duplicate detector finds, and how many pairs of a folder it links.

    python -m tests.bench.duplicates data/sample/images

Makes five kinds of copies of every picture of a folder, and counts how many are linked to their original at the default
distance; then lists the pairs it links among the originals, to be looked at.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from stages.lib import decoding, duplicates, folder, images

FRAME = images.Frame(256, "squash", 120, 20)
DISTANCE = 16  # validate.duplicate_distance


def resized(picture: Image.Image, _: np.random.Generator) -> Image.Image:
    return picture.resize((max(1, picture.width // 2), max(1, picture.height // 2)))


def recompressed(picture: Image.Image, _: np.random.Generator) -> Image.Image:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=40)
    return Image.open(buffer).convert("RGB")


def mirrored(picture: Image.Image, _: np.random.Generator) -> Image.Image:
    return picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def cropped(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """95 % of width and of height, anywhere."""
    width, height = int(picture.width * 0.95), int(picture.height * 0.95)
    left, top = rng.integers(picture.width - width + 1), rng.integers(picture.height - height + 1)
    return picture.crop((left, top, left + width, top + height))


def watermarked(picture: Image.Image, _: np.random.Generator) -> Image.Image:
    """A half transparent banner over 5 % of the area."""
    marked = picture.copy()
    width, height = marked.size
    pen = ImageDraw.Draw(marked, "RGBA")
    pen.rectangle((width * 0.55, height * 0.85, width * 0.98, height * 0.97), fill=(255, 255, 255, 140))
    pen.rectangle((width * 0.60, height * 0.88, width * 0.93, height * 0.94), fill=(40, 40, 40, 150))
    return marked


COPIES: list[Callable[[Image.Image, np.random.Generator], Image.Image]] = [resized, recompressed, mirrored, cropped, watermarked]


def square(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture.resize((FRAME.side, FRAME.side), images.SAMPLING))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("--most", type=int, default=600, help="pictures at most")
    args = parser.parse_args()
    names, originals = [], []
    for name in folder.image_files(args.images)[: args.most]:
        try:
            originals.append(images.open_square(args.images / name, FRAME).pixels)
            names.append(name)
        except images.ImageFault as fault:
            print(f"  left out: {name}: {fault.reason}")
    linked = links(originals)
    possible = len(names) * (len(names) - 1) // 2
    print(f"{len(names)} pictures: {len(linked)} of {possible} pairs linked ({len(linked) / possible:.2e})")
    for first, second in linked:
        print(f"  {names[first]}  {names[second]}")
    rng = np.random.default_rng(0)
    for change in COPIES:
        found = sum(decoding.in_order(lambda pixels, c=change: is_found(pixels, c, rng), originals, 1))  # type: ignore[misc]
        print(f"{change.__name__:<13} recall {found / len(originals):.3f} ({found} of {len(originals)})")


def is_found(pixels: np.ndarray, change: Callable, rng: np.random.Generator) -> int:
    return len(links([pixels, square(change(Image.fromarray(pixels), rng))]))


def links(pictures: list[np.ndarray]) -> np.ndarray:
    signatures = np.array([duplicates.signature(pixels) for pixels in pictures], dtype=np.uint64)
    return duplicates.pairs(np.stack(pictures), signatures, [str(index) for index in range(len(pictures))], DISTANCE)


if __name__ == "__main__":
    main()
