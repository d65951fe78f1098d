"""The to-do list against a slow loop, its order and its limits, and what is left out of it."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from stages.lib import files, review

ATTRIBUTES = ["collar", "logo", "striped"]
ALL = np.ones((40, 3), dtype=bool)


def drawn(seed: int, n_images: int = 40) -> tuple[list[str], np.ndarray, np.ndarray, np.ndarray]:
    """Names, targets and log-odds with NaN, by whom each row was seen; log-odds have ties."""
    chance = np.random.default_rng(seed)
    targets = (chance.random((n_images, 3)) < [0.1, 0.5, 0.8]).astype(float)
    targets[chance.random(targets.shape) < 0.4] = np.nan
    log_odds = np.round(chance.normal(0, 3, targets.shape), 1)
    log_odds[chance.random(n_images) < 0.1] = np.nan
    seen_by = np.array(["network", "regression"], dtype=object)[chance.integers(0, 2, n_images)]
    return [f"{number}.jpg" for number in range(n_images)], targets, log_odds, seen_by


def slow_rows(
    names: list[str], targets: np.ndarray, log_odds: np.ndarray, seen_by: np.ndarray, worth: np.ndarray, most: int = 500
) -> list[tuple[object, ...]]:
    """Cell by cell: (kind, image, attribute, label, probability, seen_by), None for an unknown label."""
    suspect, clear = [], []
    for row, name in enumerate(names):
        for column in range(targets.shape[1]):
            label, odds = targets[row, column], log_odds[row, column]
            if math.isnan(odds) or not worth[row, column]:
                continue
            probability = 1 / (1 + math.exp(-odds))
            known = [other for other in targets[:, column] if not math.isnan(other)]
            rate = min(max(sum(known) / len(known) if known else 0.5, 1e-6), 1 - 1e-6)
            cell = (name, ATTRIBUTES[column], None if math.isnan(label) else int(label), round(probability, 4), seen_by[row])
            if math.isnan(label) and (probability >= 0.9 or probability <= 0.1):
                clear.append((-abs(odds - math.log(rate / (1 - rate))), row, column, cell))
            elif not math.isnan(label):
                of_label = probability if label == 1 else 1 - probability
                of_base = rate if label == 1 else 1 - rate
                if of_label < 0.5 and of_label < of_base:
                    suspect.append((of_label, row, column, cell))
    listed = [("label contradicted", cell) for *_, cell in sorted(suspect)[:most]]
    return [(kind, *cell) for kind, cell in listed + [("unknown but clear", cell) for *_, cell in sorted(clear)[:most]]]


def rows_of(table: pd.DataFrame) -> list[tuple[object, ...]]:
    return [tuple(None if value is pd.NA else value for value in row) for row in table.itertuples(index=False)]


@pytest.mark.parametrize("seed", range(6))
def test_against_a_slow_loop(seed: int) -> None:
    names, targets, log_odds, seen_by = drawn(seed)
    found = review.table(names, ATTRIBUTES, targets, log_odds, seen_by, ALL)
    expected = slow_rows(names, targets, log_odds, seen_by, ALL)
    assert list(found) == ["kind", "image", "attribute", "label", "probability", "seen_by"]
    assert {kind for kind, *_ in expected} == {review.SUSPECT, review.CLEAR}
    assert rows_of(found) == expected


@pytest.mark.parametrize("worth", [[True, False, True], [False, True, False], [False, False, False]])
def test_an_attribute_without_signal_is_left_out(worth: list[bool]) -> None:
    names, targets, log_odds, seen_by = drawn(0)
    found = review.table(names, ATTRIBUTES, targets, log_odds, seen_by, ALL & np.array(worth))
    assert set(found["attribute"]) == {name for name, kept in zip(ATTRIBUTES, worth, strict=True) if kept}
    assert rows_of(found) == slow_rows(names, targets, log_odds, seen_by, ALL & np.array(worth))


def test_rows_that_no_model_has_seen_are_left_out() -> None:
    names, targets, log_odds, seen_by = drawn(0)
    unseen = {name for name, odds in zip(names, log_odds, strict=True) if np.isnan(odds).all()}
    assert unseen
    found = review.table(names, ATTRIBUTES, targets, log_odds, seen_by, ALL)
    assert not unseen & set(found["image"])
    assert review.table(names, ATTRIBUTES, targets, np.full(targets.shape, np.nan), seen_by, ALL).empty


def listed(targets: list[float], log_odds: list[float]) -> pd.DataFrame:
    """The table of one attribute; images are called a, b, c, ..."""
    column = (np.array(values, dtype=float).reshape(-1, 1) for values in (targets, log_odds))
    names = [chr(ord("a") + number) for number in range(len(targets))]
    return review.table(names, ["logo"], *column, np.full(len(targets), "network", dtype=object), np.array([True]))


def test_the_label_that_the_model_doubts_most_comes_first() -> None:
    found = listed([1, 0, 1, 0, 1], [-1, 3, -2, -5, 0])
    assert list(found["image"]) == ["b", "c", "a"]  # probability of the label 0.05, 0.12, 0.27; 0.5 is no doubt
    assert list(found["label"]) == [0, 1, 1]
    assert list(found["probability"]) == [0.9526, 0.1192, 0.2689]


def test_what_the_base_rate_would_not_have_told_comes_first() -> None:
    """One of ten is present: an unknown label that is surely present says more than one that is surely absent."""
    known = [1.0] + [0.0] * 9
    found = listed([*known, *[np.nan] * 4], [4, *[-4] * 9, -4, 3, 2.3, 2.5])
    assert list(found["image"]) == ["l", "n", "m", "k"]
    assert found["label"].isna().all()


@pytest.mark.parametrize(("probability", "clear"), [(0.901, True), (0.899, False), (0.101, False), (0.099, True)])
def test_from_which_probability_an_unknown_label_is_clear(probability: float, clear: bool) -> None:
    found = listed([np.nan, 1, 0], [math.log(probability / (1 - probability)), 1, -1])
    assert len(found) == clear


def test_equal_doubts_stand_in_the_order_of_the_images() -> None:
    assert list(listed([1, 1, 1, 1], [-2, -3, -2, -3])["image"]) == ["b", "d", "a", "c"]


def test_there_is_a_limit_to_each_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    names, targets, log_odds, seen_by = drawn(1)
    assert review.MOST == 500
    monkeypatch.setattr(review, "MOST", 4)
    found = review.table(names, ATTRIBUTES, targets, log_odds, seen_by, ALL)
    assert list(found["kind"]) == [review.SUSPECT] * 4 + [review.CLEAR] * 4
    assert rows_of(found) == slow_rows(names, targets, log_odds, seen_by, ALL, most=4)


def test_an_attribute_of_which_nothing_is_known() -> None:
    names, targets, log_odds, seen_by = drawn(2)
    targets[:, 1] = np.nan
    found = review.table(names, ATTRIBUTES, targets, log_odds, seen_by, ALL)
    assert rows_of(found) == slow_rows(names, targets, log_odds, seen_by, ALL)
    assert set(found[found["attribute"] == "logo"]["kind"]) == {review.CLEAR}


def test_an_attribute_of_one_class() -> None:
    found = listed([1, 1, np.nan, np.nan], [3, -1, 4, -4])
    assert list(found["image"]) == ["b", "d", "c"]  # an absent one would be the first of its kind


def test_an_extreme_model_needs_no_care() -> None:
    found = listed([1, np.nan, 0], [-800, 800, 800])
    assert list(found["probability"]) == [0, 1, 1]


@pytest.mark.parametrize("n_images", [0, 1])
def test_nothing_to_look_at_is_an_empty_table_with_its_columns(n_images: int, tmp_path) -> None:
    found = listed([1.0] * n_images, [5.0] * n_images)
    assert found.empty
    files.write_table(tmp_path / "review.csv", found)
    assert (tmp_path / "review.csv").read_text() == "kind,image,attribute,label,probability,seen_by\n"


def test_unknown_labels_are_na_in_the_file_and_known_ones_whole(tmp_path) -> None:
    files.write_table(tmp_path / "review.csv", listed([1, np.nan], [-3, 3]))
    lines = (tmp_path / "review.csv").read_text().splitlines()
    assert lines[1] == "label contradicted,a,logo,1,0.0474,network"
    assert lines[2] == "unknown but clear,b,logo,NA,0.9526,network"
