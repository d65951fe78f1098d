"""Open any image file safely -> square RGB pixels; the faults a file can have.

`open_square` is the one way from a file to pixels: validate fills the pixel store with it and predict feeds
the model with it, so that the same file always gives the same pixels.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from stages.lib.faults import shown

# Pillow's own limit warns first and raises at twice the number; ours is checked before anything is decoded.
Image.MAX_IMAGE_PIXELS = None
ImageFile.LOAD_TRUNCATED_IMAGES = False
# Pillow warns of odd metadata, which does not matter here. Set once: the context manager is not thread-safe.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\..*")

COMMON_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".webp", ".bmp", ".tif", ".tiff")
SUFFIXES = frozenset((*COMMON_SUFFIXES, ".ppm", ".pgm", ".pbm", ".avif", ".jp2", ".tga"))
# Not ICO and ICNS, which Pillow decodes before their size can be checked, and not PostScript, which is a program.
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000", "TGA")
IN_CACHE = re.compile(r"/[0-9a-f]{2}/[0-9a-f]{30}(\.dir)?$")  # where DVC keeps a file, by its MD5
WHITE = (255, 255, 255)
SAMPLING = Image.Resampling.BILINEAR  # with anti-aliasing, as torchvision's reference transforms
ORIENTATION_TAG = 0x0112
# EXIF 2.3, tag Orientation: what undoes each value.
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class ImageFault(Exception):
    """A file that gives no usable pixels: `kind` is a key of faults.EFFECTS, `reason` is for people."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(kind, reason)
        self.kind = kind
        self.reason = reason


@dataclass(frozen=True)
class Opened:
    """`pixels` is uint8 of shape (side, side, 3); `digest` the SHA-256 of the file; sizes are in pixels."""

    pixels: np.ndarray
    digest: str
    width: int
    height: int
    animated: bool


@dataclass(frozen=True)
class Frame:
    """How a file becomes a square: output side, what is done with the longer side, and what is refused."""

    side: int
    fit: str  # "crop" keeps the middle, "pad" adds white, "squash" changes the aspect
    max_megapixels: float
    max_aspect: float


def inside(folder: Path, name: str) -> Path | None:
    """The path of image `name` in `folder`, or None where the name, or a symbolic link it meets, leaves the folder.

    Links into a DVC cache are followed (`dvc config cache.type symlink` makes them); the folder itself may be a link.
    """
    plain = os.path.normpath(name)
    if os.path.isabs(plain) or plain.split(os.sep)[0] == os.pardir or "\0" in name or plain == os.curdir:
        return None
    path = folder / plain
    # Most names meet no link, and finding that out is much cheaper than resolving every path.
    if not any(os.path.islink(part) for part in (path, *path.parents[: plain.count(os.sep)])):
        return path
    target = os.path.realpath(path)
    inner = target.startswith(os.path.join(os.path.realpath(folder), "")) or IN_CACHE.search(target)
    return path if inner or not os.path.exists(target) else None


def open_square(path: Path, frame: Frame) -> Opened:
    """Open, decode fully, turn upright, lay transparency on white, and fit into a square.

    Of an animation the first frame counts. Raises ImageFault.
    """
    check_file(path)
    try:
        with open(path, "rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
            opened.seek(0)
            with _identified(path, opened) as image:
                width, height = image.size
                check_size(width, height, frame)
                animated = getattr(image, "n_frames", 1) > 1 and image.format in ("GIF", "PNG", "WEBP", "AVIF")
                pixels = _squared(image, frame)
                orientation = _orientation(image)
    except ImageFault:
        raise
    except OSError as error:
        if error.errno is not None:
            raise ImageFault("unreadable_file", f"can't be read: {error.strerror}") from None
        raise ImageFault("damaged_image", f"damaged or cut off: {shown(error)}") from None
    except Exception as error:  # decoders raise whatever a damaged file leads them to: it is the file's fault
        raise ImageFault("damaged_image", f"damaged: {type(error).__name__}: {shown(error)}") from None
    if orientation in UPRIGHT:  # on a square, turning after fitting is the same and cheaper
        pixels = pixels.transpose(UPRIGHT[orientation])
    return Opened(np.asarray(pixels), digest, width, height, animated)


def _orientation(image: Image.Image) -> int | None:
    """The EXIF orientation that is still to be undone; `image` is decoded, so that no fault of its pixels hides here."""
    if image.format == "TIFF":
        return None  # Pillow turns these itself while it decodes
    try:
        return image.getexif().get(ORIENTATION_TAG)
    except Exception:  # broken metadata in a healthy picture; the parsers raise errors of many types
        return None


def check_file(path: Path) -> None:
    """Raise ImageFault for what is no regular file with something in it."""
    try:
        status = path.stat()
    except FileNotFoundError:
        if path.is_symlink():
            target = shown(os.readlink(path))
            raise ImageFault("dangling_link", f"symbolic link to '{target}', which does not exist") from None
        raise ImageFault("missing_image", "no such file in the images folder") from None
    except (OSError, ValueError) as error:
        raise ImageFault("unreadable_file", f"can't be reached: {shown(error)}") from None
    if not stat.S_ISREG(status.st_mode):
        raise ImageFault("not_an_image", "not a regular file")
    if status.st_size == 0:
        raise ImageFault("empty_file", "the file is empty (0 bytes)")


def _identified(path: Path, opened: object) -> Image.Image:
    try:
        return Image.open(opened, formats=FORMATS)  # type: ignore[arg-type]
    except UnidentifiedImageError:
        raise ImageFault("not_an_image", _what_it_is(path)) from None


def _what_it_is(path: Path) -> str:
    """In words, what a file that is no image seems to be."""
    with open(path, "rb") as opened:
        start = opened.read(512).lstrip().lower()
    known = {
        b"<!doctype html": "an HTML page",
        b"<html": "an HTML page",
        b"<?xml": "an XML or SVG file",
        b"<svg": "an SVG file",
        b"%pdf": "a PDF",
        b"{": "JSON text",
        b"pk\x03\x04": "a ZIP archive",
        b"version https://git-lfs": "a Git LFS pointer (run 'git lfs pull')",
    }
    for magic, name in known.items():
        if start.startswith(magic):
            return f"not an image: it is {name}"
    # Of what a link leads to nothing is quoted: the link may be somebody else's, and the file not meant for tables.
    quoted = "" if path.is_symlink() else f" (it starts with {shown(start[:16])})"
    return f"not an image in a known format{quoted}"


def check_size(width: int, height: int, frame: Frame) -> None:
    """Raise ImageFault for a picture that is too large to decode or too long to be fitted into a square."""
    if width * height > frame.max_megapixels * 1e6:
        found = f"{width} x {height} pixels"
        limit = f"{frame.max_megapixels:g} megapixels (validate.max_megapixels)"
        raise ImageFault("too_many_pixels", f"{found}, above the limit of {limit}")
    if max(width, height) > frame.max_aspect * min(width, height):
        found = f"{width} x {height} pixels"
        limit = f"{frame.max_aspect:g} to 1 (validate.max_aspect)"
        raise ImageFault("extreme_aspect", f"{found}: longer than the limit of {limit}")


def _squared(image: Image.Image, frame: Frame) -> Image.Image:
    """Decode `image` and fit it into (side, side) RGB."""
    side, (width, height) = frame.side, image.size
    # JPEG decodes at 1/2, 1/4 or 1/8 for a fraction of the cost; half as much again as needed keeps the quality.
    needed = 1.5 * side / (max(width, height) if frame.fit == "pad" else min(width, height))
    if needed < 1:
        image.draft(None, (round(width * needed), round(height * needed)))
    image = _rgb(image)
    width, height = image.size
    if frame.fit == "crop":
        short = min(width, height)
        left, top = (width - short) / 2, (height - short) / 2
        box = (left, top, left + short, top + short)
        return image.resize((side, side), SAMPLING, box=box, reducing_gap=3.0)
    if frame.fit == "squash":
        return image.resize((side, side), SAMPLING, reducing_gap=3.0)
    scale = side / max(width, height)
    inner = (max(1, round(width * scale)), max(1, round(height * scale)))
    canvas = Image.new("RGB", (side, side), WHITE)
    corner = ((side - inner[0]) // 2, (side - inner[1]) // 2)
    canvas.paste(image.resize(inner, SAMPLING, reducing_gap=3.0), corner)
    return canvas


def _rgb(image: Image.Image) -> Image.Image:
    """Any mode as RGB: 16 and 32 bit are scaled to 8, transparency is laid on white."""
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        return _eight_bits(np.asarray(image))
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        ground = Image.new("RGB", image.size, WHITE)
        ground.paste(image, mask=image.getchannel("A"))
        return ground
    return image.convert("RGB")


def _eight_bits(values: np.ndarray) -> Image.Image:
    """Grey values of 16 bits, or floats from 0 to 1, as 8-bit RGB.

    Pillow's own conversion cuts off at 255 instead, which turns nearly every 16-bit picture white.
    """
    finite = np.nan_to_num(values.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    brightest = finite.max()
    full = 1.0 if values.dtype.kind == "f" and brightest <= 1 else 65535.0 if brightest > 255 else 255.0
    grey = np.clip(finite * (255.0 / full), 0, 255)
    return Image.fromarray(np.rint(grey).astype(np.uint8)).convert("RGB")
