"""Which cells (an image and an attribute) are worth a look, and a contact sheet of them with heat maps."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from stages.lib import files
from stages.lib.faults import shown

MOST = 12  # cells on a sheet
ACROSS = 3  # cells beside each other: a page of `dvc plots show` holds the sheet without scrolling sideways
THUMB, JOIN, GAP, MARGIN = 196, 4, 22, 24  # in pixels: thumbnail, between the two of a cell, between cells, around all
WIDTH = 2 * THUMB + JOIN  # of a cell
HEADING, TITLE, NOTE = 26, 17, 15  # font sizes in pixels; a report shows the sheet at about two thirds
LINE = 1.3  # height of a line of text relative to the font size
LONGEST = 5000  # characters of a text that are looked at; paths on Linux have 4096 at most
INK, GREY = (20, 20, 20), (105, 105, 105)
COLOURS = "turbo"
STRONGEST = 0.7  # opacity of the heat at its maximum: what lies below stays recognisable


@dataclass(frozen=True)
class Cell:
    """One label of one image: `row` and `column` in the table, a line that says what is the matter, and a quiet one."""

    row: int
    column: int
    title: str
    note: str


def confident_errors(targets: np.ndarray, probabilities: np.ndarray, most: int = MOST) -> list[tuple[int, int]]:
    """Cells (row, column) whose label contradicts the probability, most contradicted first, at most `most`.

    Both arrays are (n_images, n_attributes), `targets` with NaN for unknown. A label contradicts a probability
    on the other side of 0.5. No attribute takes more than half of the places while others have errors left.
    """
    against = np.abs(targets - probabilities)  # NaN, and so never above 0.5, where unknown
    return sorted(_spread([(_ordered(against > 0.5, -against), most)], most), key=lambda cell: (-against[cell], cell))


def least_certain(
    targets: np.ndarray, log_odds: np.ndarray, threshold_log_odds: np.ndarray, most: int = MOST
) -> list[tuple[int, int]]:
    """Cells (row, column) nearest to their attribute's threshold: unknown ones first, then known ones.

    `targets` (NaN for unknown) and `log_odds` are (n_images, n_attributes), `threshold_log_odds` is
    (n_attributes,). Unknown cells, which are the ones worth labelling next, take half of the places (rounded up),
    or more where known ones run out. No attribute takes more than half of the places while others have cells left. An
    attribute with an infinite threshold has no uncertain cells.
    """
    with np.errstate(invalid="ignore"):  # infinity - infinity
        distance = np.abs(log_odds - threshold_log_odds)
    unknown, usable = np.isnan(targets), np.isfinite(distance)
    open_cells, known_cells = _ordered(unknown & usable, distance), _ordered(~unknown & usable, distance)
    chosen = _spread([(open_cells, (most + 1) // 2), (known_cells, most), (open_cells, most)], most)
    return sorted(chosen, key=lambda cell: (not unknown[cell], distance[cell], cell))


def _ordered(which: np.ndarray, rank: np.ndarray) -> list[tuple[int, int]]:
    """The cells where `which` holds, lowest rank first; ties by row, then by column."""
    cells = np.argwhere(which)
    order = np.argsort(rank[which], kind="stable")
    return [(int(row), int(column)) for row, column in cells[order]]


def _spread(pools: Sequence[tuple[list[tuple[int, int]], int]], most: int) -> set[tuple[int, int]]:
    """Take cells in order from one pool after the other, each until so many are taken in all.

    An attribute stops at half of `most`. Places that are still free then go to the first cells left over.
    """
    taken: set[tuple[int, int]] = set()
    per_attribute: Counter[int] = Counter()
    for share in (max(1, most // 2), most):
        for cells, limit in pools:
            for cell in cells:
                if len(taken) >= min(limit, most):
                    break
                if cell not in taken and per_attribute[cell[1]] < share:
                    taken.add(cell)
                    per_attribute[cell[1]] += 1
    return taken


def sheet(
    path: Path,
    cells: Sequence[Cell],
    picture_of: Callable[[int], np.ndarray],
    heat: np.ndarray,
    heading: str,
    nothing: str,
) -> None:
    """A contact sheet as PNG: per cell its picture, the same under its heat map, its title and its note.

    `picture_of` gives the uint8 (side, side, 3) picture of a row, `heat` is (n_cells, height, width) from 0 to 1.
    The first twelve cells are drawn, three across; without cells the sheet says `nothing`.
    """
    cells = cells[:MOST]
    titles = [_wrapped(cell.title, TITLE, WIDTH) for cell in cells]
    lines = max(map(len, titles), default=1)
    step = THUMB + _height(TITLE) * lines + _height(NOTE) + GAP
    across = min(ACROSS, max(2, len(cells)))  # two at least, so that the heading has room
    width = 2 * MARGIN + across * (WIDTH + GAP) - GAP
    headings = _wrapped(heading, HEADING, width - 2 * MARGIN)
    top = MARGIN + _height(HEADING) * len(headings) + _height(NOTE) + GAP // 2
    down = -(-len(cells) // across)
    canvas = Image.new("RGB", (width, top + max(down * step, _height(TITLE) + GAP)), "white")
    draw = ImageDraw.Draw(canvas)
    _write(draw, (MARGIN, MARGIN), headings, HEADING, INK)
    if cells:
        _key(canvas, draw, (MARGIN, top - GAP // 2 - _height(NOTE)))
    else:
        _write(draw, (MARGIN, top - _height(NOTE)), _wrapped(nothing, TITLE, width - 2 * MARGIN), TITLE, GREY)
    for index, (cell, title) in enumerate(zip(cells, titles, strict=True)):
        corner = (MARGIN + index % across * (WIDTH + GAP), top + index // across * step)
        picture = np.array(picture_of(cell.row))
        canvas.paste(_thumbnail(picture), corner)
        canvas.paste(overlaid(picture, heat[index]), (corner[0] + THUMB + JOIN, corner[1]))
        _write(draw, (corner[0], corner[1] + THUMB + 3), title, TITLE, INK)
        note = _shortened(cell.note, NOTE, WIDTH)
        _write(draw, (corner[0], corner[1] + THUMB + 3 + _height(TITLE) * len(title)), [note], NOTE, GREY)
    with files.replacing(path) as temporary:
        canvas.save(temporary)


def overlaid(picture: np.ndarray, heat: np.ndarray) -> Image.Image:
    """A thumbnail of `picture` (side, side, 3) in grey under the colours of `heat` (height, width), clear where it is 0."""
    grey = np.asarray(_thumbnail(picture).convert("L"), dtype=float)[:, :, None]
    finite = np.nan_to_num(heat.astype(np.float32))
    spread = np.asarray(Image.fromarray(finite).resize((THUMB, THUMB), Image.Resampling.BILINEAR), dtype=float)
    opacity = STRONGEST * np.clip(spread, 0, 1)[:, :, None]
    mixed = (1 - opacity) * grey + opacity * 255 * matplotlib.colormaps[COLOURS](spread)[:, :, :3]
    return Image.fromarray(np.rint(mixed).astype(np.uint8))


def _thumbnail(picture: np.ndarray) -> Image.Image:
    return Image.fromarray(picture).resize((THUMB, THUMB), Image.Resampling.LANCZOS)


def _key(canvas: Image.Image, draw: ImageDraw.ImageDraw, corner: tuple[int, int]) -> None:
    """One line that explains the pairs of thumbnails, with a bar of the colours."""
    ramp = np.broadcast_to(np.linspace(0, 1, 110), (NOTE, 110))
    texts = ("left: the picture; right: what speaks for the attribute in it, from nothing", "to most")
    left = corner[0]
    _write(draw, corner, [texts[0]], NOTE, GREY)
    left += round(_font(NOTE).getlength(texts[0])) + 8
    bar = matplotlib.colormaps[COLOURS](ramp)[:, :, :3]
    opacity = STRONGEST * ramp[:, :, None]
    colours = Image.fromarray(np.rint(255 * (opacity * bar + (1 - opacity) * 0.6)).astype(np.uint8))
    canvas.paste(colours, (left, corner[1] + 2))
    _write(draw, (left + 110 + 8, corner[1]), [texts[1]], NOTE, GREY)


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """matplotlib's font, so that all figures look alike; with Pillow's own layout, which every install has."""
    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    return ImageFont.truetype(str(path), size, layout_engine=ImageFont.Layout.BASIC)


def _height(size: int) -> int:
    return round(size * LINE)


def _write(
    draw: ImageDraw.ImageDraw, corner: tuple[int, int], lines: Sequence[str], size: int, ink: tuple[int, int, int]
) -> None:
    for number, line in enumerate(lines):
        draw.text((corner[0], corner[1] + number * _height(size)), line, fill=ink, font=_font(size))


def _wrapped(text: str, size: int, width: int) -> list[str]:
    """`text` made harmless, on one line or two of `width` pixels, each shortened where it must be."""
    words = shown(text, LONGEST).split(" ")
    fitting = 1
    while fitting < len(words) and _font(size).getlength(" ".join(words[: fitting + 1])) <= width:
        fitting += 1
    lines = [" ".join(words[:fitting]), " ".join(words[fitting:])]
    return [_shortened(line, size, width) for line in lines if line] or [""]


def _shortened(text: str, size: int, width: int) -> str:
    """`text` made harmless and, where it is wider than `width` pixels, shortened from the middle."""
    plain = shown(text, LONGEST)
    if _font(size).getlength(plain) <= width:
        return plain

    def both_ends(kept: int) -> str:
        return f"{plain[: -(-kept // 2)]}…{plain[len(plain) - kept // 2 :]}"

    fitting = bisect_right(range(1, len(plain)), float(width), key=lambda kept: _font(size).getlength(both_ends(kept)))
    return both_ends(fitting)
