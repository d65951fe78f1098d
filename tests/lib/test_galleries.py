"""Cells worth a look against slow reimplementations, and the contact sheet that shows them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stages.lib import galleries
from stages.lib.galleries import Cell

NAN = np.nan
Cells = list[tuple[int, int]]


def made(seed: int, n_images: int, n_attributes: int, unknown: float = 0.3) -> tuple[np.ndarray, np.ndarray]:
    """Targets, and probabilities in steps of 0.1 so that there are ties; attributes differ in how wrong they are."""
    chance = np.random.default_rng(seed)
    targets = chance.integers(0, 2, (n_images, n_attributes)).astype(float)
    noise = chance.random((n_images, n_attributes)) * np.linspace(0.4, 1, n_attributes)
    probabilities = np.abs(targets - noise).round(1)
    targets[chance.random(targets.shape) < unknown] = NAN
    return targets, probabilities


def below_half(cells: Cells, taken: Cells, most: int) -> Cells:
    """The cells of attributes that have not yet half of the places, or all where there is none."""
    counts = [column for _, column in taken]
    return [cell for cell in cells if counts.count(cell[1]) < max(1, most // 2)] or cells


def slow_errors(targets: np.ndarray, probabilities: np.ndarray, most: int) -> Cells:
    """One place after the other, each by a search over all cells."""
    taken: Cells = []
    wrong = {
        cell: abs(label - probabilities[cell])
        for cell, label in np.ndenumerate(targets)
        if (label == 0 and probabilities[cell] > 0.5) or (label == 1 and probabilities[cell] < 0.5)
    }
    while len(taken) < most and (left := [cell for cell in wrong if cell not in taken]):
        taken.append(min(below_half(left, taken, most), key=lambda cell: (-wrong[cell], cell)))
    return sorted(taken, key=lambda cell: (-wrong[cell], cell))


def slow_uncertain(targets: np.ndarray, log_odds: np.ndarray, thresholds: np.ndarray, most: int) -> Cells:
    """The same for uncertain cells: the first half of the places prefers unknown cells, the second known ones."""
    taken: Cells = []
    distance = {cell: abs(value - thresholds[cell[1]]) for cell, value in np.ndenumerate(log_odds)}
    while len(taken) < most and (left := [cell for cell in distance if cell not in taken]):
        pool = below_half(left, taken, most)
        wants_unknown = len(taken) < most / 2
        preferred = [cell for cell in pool if np.isnan(targets[cell]) == wants_unknown]
        taken.append(min(preferred or pool, key=lambda cell: (distance[cell], cell)))
    return sorted(taken, key=lambda cell: (bool(not np.isnan(targets[cell])), distance[cell], cell))


SHAPES = [(30, 4), (30, 1), (1, 4), (1, 1), (6, 3), (3, 20), (40, 2)]


@pytest.mark.parametrize("most", [12, 5, 2, 1, 0])
@pytest.mark.parametrize("shape", SHAPES)
def test_confident_errors_against_a_slow_search(shape: tuple[int, int], most: int) -> None:
    for seed in range(3):
        targets, probabilities = made(seed, *shape)
        found = galleries.confident_errors(targets, probabilities, most)
        assert found == slow_errors(targets, probabilities, most)
        assert len(set(found)) == len(found) <= most


@pytest.mark.parametrize("unknown", [0.0, 0.05, 0.3, 1.0])
@pytest.mark.parametrize("most", [12, 5, 2, 1, 0])
@pytest.mark.parametrize("shape", SHAPES)
def test_least_certain_against_a_slow_search(shape: tuple[int, int], most: int, unknown: float) -> None:
    for seed in range(3):
        targets, probabilities = made(seed, *shape, unknown)
        log_odds = 4 * probabilities - 2
        thresholds = np.linspace(-1, 0.5, shape[1])
        found = galleries.least_certain(targets, log_odds, thresholds, most)
        assert found == slow_uncertain(targets, log_odds, thresholds, most)
        assert len(set(found)) == len(found) == min(most, targets.size)


def test_errors_are_known_contradicted_and_worst_first() -> None:
    targets = np.array([[1, 0], [0, NAN], [1, 1], [0, 0]], dtype=float)
    probabilities = np.array([[0.1, 0.2], [0.7, 0.99], [0.5, 0.5], [0.9, 0.6]])
    # 0.5 contradicts nothing; the two of 0.9 go by row.
    assert galleries.confident_errors(targets, probabilities) == [(0, 0), (3, 0), (1, 0), (3, 1)]
    assert galleries.confident_errors(targets, probabilities, 2) == [(0, 0), (3, 1)]


def test_an_attribute_takes_more_than_half_only_when_the_others_have_nothing_left() -> None:
    targets = np.zeros((20, 3))
    probabilities = np.full((20, 3), 0.1)
    probabilities[:, 0] = 0.95
    assert [column for _, column in galleries.confident_errors(targets, probabilities)] == [0] * 12
    probabilities[:2, 2] = 0.6
    assert sorted(column for _, column in galleries.confident_errors(targets, probabilities)) == [0] * 10 + [2] * 2
    probabilities[:9, 1] = 0.7
    assert sorted(column for _, column in galleries.confident_errors(targets, probabilities)) == [0] * 6 + [1] * 6


def test_uncertain_is_near_the_attributes_own_threshold_and_unknown_comes_first() -> None:
    targets = np.array([[1, NAN], [NAN, 0], [NAN, 1]])
    log_odds = np.array([[0.0, -1.0], [5.0, -1.1], [0.3, 7.0]])
    found = galleries.least_certain(targets, log_odds, np.array([0.0, -1.0]), 4)
    assert found == [(0, 1), (2, 0), (0, 0), (1, 1)]
    assert galleries.least_certain(targets, log_odds, np.array([5.0, -1.0]), 1) == [(0, 1)]


def test_without_any_label_nothing_is_wrong_and_everything_uncertain() -> None:
    targets, probabilities = np.full((5, 2), NAN), np.full((5, 2), 0.7)
    assert galleries.confident_errors(targets, probabilities) == []
    found = galleries.least_certain(targets, probabilities, np.zeros(2), 4)
    assert found == [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_no_errors_and_no_images() -> None:
    targets = np.array([[0, 1], [1, 0]], dtype=float)
    assert galleries.confident_errors(targets, np.abs(targets - 0.2)) == []
    assert galleries.confident_errors(np.empty((0, 2)), np.empty((0, 2))) == []
    assert galleries.least_certain(np.empty((0, 2)), np.empty((0, 2)), np.zeros(2)) == []


def test_an_attribute_with_an_infinite_threshold_is_never_uncertain() -> None:
    log_odds = np.array([[np.inf, 1.0], [0.0, -np.inf], [-1.0, 2.0]])
    found = galleries.least_certain(np.zeros((3, 2)), log_odds, np.array([np.inf, 0.0]))
    assert found == [(0, 1), (2, 1)]


def picture_of(row: int) -> np.ndarray:
    return np.random.default_rng(row).integers(0, 256, (40, 40, 3), dtype=np.uint8)


def cells_of(n: int, title: str = "logo: labelled absent, 97 % present", note: str = "garment.jpg") -> list[Cell]:
    return [Cell(row, 0, title, note) for row in range(n)]


def drawn(path: Path, cells: list[Cell], heading: str = "heading", nothing: str = "nothing to see") -> np.ndarray:
    heat = np.random.default_rng(0).random((len(cells), 12, 12)).astype(np.float32)
    galleries.sheet(path, cells, picture_of, heat, heading, nothing)
    assert os.listdir(path.parent) == [path.name]
    return np.asarray(Image.open(path))


@pytest.mark.parametrize(("n", "across", "down"), [(1, 2, 1), (2, 2, 1), (3, 3, 1), (4, 3, 2), (5, 3, 2), (12, 3, 4), (15, 3, 4)])
def test_the_sheet_has_room_for_its_cells(tmp_path: Path, n: int, across: int, down: int) -> None:
    pixels = drawn(tmp_path / "sheet.png", cells_of(n))
    assert pixels.shape[1] == 2 * galleries.MARGIN + across * (galleries.WIDTH + galleries.GAP) - galleries.GAP
    assert pixels.shape[0] // (galleries.THUMB + 40) == down


def test_only_drawn_pictures_are_read(tmp_path: Path) -> None:
    asked: list[int] = []

    def counted(row: int) -> np.ndarray:
        asked.append(row)
        return picture_of(row)

    galleries.sheet(tmp_path / "sheet.png", cells_of(15), counted, np.zeros((15, 4, 4)), "heading", "nothing")
    assert asked == list(range(12))


@pytest.mark.parametrize("n", [0, 3])
def test_same_input_same_bytes(tmp_path: Path, n: int) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        drawn(tmp_path / name / "sheet.png", cells_of(n))
    assert (tmp_path / "one" / "sheet.png").read_bytes() == (tmp_path / "two" / "sheet.png").read_bytes()


def test_without_cells_the_sheet_says_so(tmp_path: Path) -> None:
    pixels = drawn(tmp_path / "sheet.png", [])
    assert (pixels < 128).any()
    assert (drawn(tmp_path / "sheet.png", [], nothing="other words") != pixels).any()


NAMES = {
    "mathtext": "$x_1$ and $\\frac{1}{2}",
    "control characters": "a\nb\tc\x1b[31md\x00",
    "not utf-8": os.fsdecode(b"na\xefve.jpg"),
    "no glyphs": "襯衫🙂",
    "right to left": "قميص",
    "one long word": "w" * 1000,
    "many words": "word " * 100,
    "spaces": "   ",
    "empty": "",
}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES.keys())
def test_any_text_stays_inside_its_cell(tmp_path: Path, name: str) -> None:
    size, width = galleries.TITLE, galleries.WIDTH
    lines = galleries._wrapped(name, size, width)
    assert 1 <= len(lines) <= 2
    assert all(galleries._font(size).getlength(line) <= width and line.isprintable() for line in lines)
    pixels = drawn(tmp_path / "sheet.png", cells_of(5, name, name), name, name)
    assert (pixels[:, -galleries.MARGIN :] == 255).all()


def test_dollars_and_escapes_are_shown_as_they_are() -> None:
    assert galleries._wrapped("$x^2$ a\nb", galleries.TITLE, galleries.WIDTH) == ["$x^2$ a\\nb"]


def test_a_line_that_fits_stays_and_a_long_name_keeps_both_ends() -> None:
    usual = "long_sleeve: labelled present, 97 % present"
    assert galleries._wrapped(usual, galleries.TITLE, galleries.WIDTH) == [usual]
    short = galleries._shortened("folder/" + "x" * 200 + "_0001.jpg", galleries.NOTE, galleries.WIDTH)
    assert short.startswith("folder/x")
    assert short.endswith("x_0001.jpg")
    assert short.count("…") == 1
    # Nearly all of the width is used: one more letter would not fit.
    assert galleries._font(galleries.NOTE).getlength(short + "x") > galleries.WIDTH


def test_without_heat_the_overlay_is_the_picture_in_grey() -> None:
    picture = picture_of(0)
    found = np.asarray(galleries.overlaid(picture, np.zeros((3, 3))))
    grey = np.asarray(galleries._thumbnail(picture).convert("L"))
    np.testing.assert_array_equal(found, np.repeat(grey[:, :, None], 3, axis=2))
    np.testing.assert_array_equal(np.asarray(galleries.overlaid(picture, np.full((3, 3), NAN))), found)


def test_heat_colours_the_place_where_it_is() -> None:
    heat = np.zeros((4, 4), dtype=np.float32)
    heat[0, 3] = 1
    picture = np.full((40, 40, 3), 128, dtype=np.uint8)
    found = np.asarray(galleries.overlaid(picture, heat)).astype(int)
    side = galleries.THUMB
    red, green, blue = found[5, side - 6]
    assert red > 1.5 * max(green, blue)
    coloured = (found.max(2) - found.min(2)) > 5
    assert not coloured[side // 2 :].any()  # heat of one place in four reaches not quite into the second half
    assert not coloured[:, : side // 2].any()
