"""Differences of two models: against scikit-learn on repeated rows, made differences, and where nothing can be said."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sk

from stages.lib import contrast, evidence, metrics, resampling
from stages.lib.chance import seed_for
from stages.lib.contrast import BETTER, MACRO, SAME, WORSE
from stages.lib.evidence import Outcome
from tests.outcomes import outcome_of

NAMES = ["a", "b", "c"]
SCORES = ("ap", "roc_auc", "f1", "skill")
COLUMNS = ["score", "attribute", "macro", "one", "other", "difference", "low", "high", "p", "word"]
Z = 1.959964


@pytest.fixture(autouse=True)
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence, "RESAMPLES", 300)


def pair(seed: int, n_images: int = 90, signals: tuple[float, float] = (1.0, 0.7), noise: float = 0.5) -> tuple[Outcome, Outcome]:
    """Two models of three attributes on the same rows; most of their noise is the image's own, `noise` is each model's."""
    chance = np.random.default_rng(seed)
    targets = (chance.random((n_images, 3)) < [0.25, 0.5, 0.7]).astype(float)
    shared = chance.normal(0, 1, targets.shape)
    scores = [s * (2 * targets - 1) + shared + chance.normal(0, noise, targets.shape) for s in signals]
    targets[chance.random(targets.shape) < 0.2] = np.nan
    one, other = (outcome_of(targets, np.round(score, 1), np.arange(n_images) // 2) for score in scores)
    return one, other


def rows(found: pd.DataFrame, score: str) -> pd.DataFrame:
    """The rows of a score, by attribute."""
    return found[found["score"] == score].set_index("attribute")


def slow_scores(which: Outcome, chosen: np.ndarray, column: int) -> list[float]:
    """AP, ROC-AUC, F1 and skill of one attribute by scikit-learn, from rows that are really there several times."""
    known = chosen[~np.isnan(which.targets[chosen, column])]
    truth, score = which.targets[known, column], which.log_odds[known, column]
    both = 0 < truth.sum() < len(truth)
    ap = sk.average_precision_score(truth, score) if both else math.nan
    auc = sk.roc_auc_score(truth, score) if both else math.nan
    f1 = sk.f1_score(truth, which.decided[known, column]) if truth.sum() else math.nan
    return [ap, auc, f1, slow_skill(which, known, [column])]


def slow_skill(which: Outcome, chosen: np.ndarray, columns: list[int]) -> float:
    own = constant = 0.0
    for row in chosen:
        for column in columns:
            if not math.isnan(which.targets[row, column]):
                sign = 1 if which.targets[row, column] else -1
                own += math.log1p(math.exp(-sign * which.log_odds[row, column]))
                constant += math.log1p(math.exp(-sign * which.constant[row, column]))
    return 1 - own / constant if constant else math.nan


def slow_table(which: Outcome, chosen: np.ndarray) -> np.ndarray:
    """Shape (4 scores, 3 attributes and the macro score)."""
    each = np.array([slow_scores(which, chosen, column) for column in range(3)]).T
    overall = [metrics.macro(score) for score in each[:3]] + [slow_skill(which, chosen, [0, 1, 2])]
    return np.column_stack([each, overall])


# Against slow ones.


def test_points_are_the_scores_of_both() -> None:
    one, other = pair(0)
    found = contrast.contrast(NAMES, one, other, 0)
    assert list(found) == COLUMNS
    assert list(found["attribute"]) == [*NAMES, MACRO] * 4
    assert list(found["score"]) == np.repeat(SCORES, 4).tolist()
    for which, name in ((one, "one"), (other, "other")):
        slow = slow_table(which, np.arange(90))
        # Sums in another order: the last digits differ.
        np.testing.assert_allclose(found[name], slow.ravel(), rtol=1e-10)
        ap = metrics.average_precision(which.targets, which.log_odds)
        np.testing.assert_allclose(rows(found, "ap")[name], [*ap, metrics.macro(ap)], rtol=1e-10)
        auc = metrics.roc_auc(which.targets, which.log_odds)
        np.testing.assert_allclose(rows(found, "roc_auc")[name], [*auc, metrics.macro(auc)], rtol=1e-10)
    np.testing.assert_allclose(found["difference"], found["one"] - found["other"], rtol=1e-10)


@pytest.mark.parametrize("seed", range(2))
def test_spread_is_that_of_both_models_on_the_same_repeated_rows(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence, "RESAMPLES", 40)
    one, other = pair(seed)
    found = contrast.contrast(NAMES, one, other, seed)
    differences = []
    for weight in resampling.draws(one.groups, 40, seed_for(seed, "bootstrap")):
        chosen = np.repeat(np.arange(90), weight)
        differences.append(slow_table(one, chosen) - slow_table(other, chosen))
    spread = np.std(differences, axis=0).ravel()
    np.testing.assert_allclose(found["low"], found["difference"] - Z * spread, rtol=1e-6)
    np.testing.assert_allclose(found["high"], found["difference"] + Z * spread, rtol=1e-6)
    plain = np.array([math.erfc(abs(d) / s / math.sqrt(2)) for d, s in zip(found["difference"], spread, strict=True)])
    for score, p in zip(SCORES, plain.reshape(4, 4), strict=True):
        # Three attributes are adjusted together, as Holm does; the macro score is a question of its own.
        first, second, third = np.argsort(p[:3])
        expected = {first: min(1, 3 * p[first])}
        expected[second] = min(1, max(2 * p[second], expected[first]))
        expected[third] = min(1, max(p[third], expected[second]))
        np.testing.assert_allclose(rows(found, score)["p"], [*(expected[column] for column in range(3)), p[3]], rtol=1e-6)


def test_holm_counts_attributes_and_not_the_macro_score() -> None:
    """An attribute that is copied nine times is asked ten times: its p is ten times as large, the macro score's is as it was."""
    one, other = pair(3, signals=(1.0, 0.6))
    single, tenfold = ([dataclasses.replace(which, **first_column(which, times)) for which in (one, other)] for times in (1, 10))
    few = rows(contrast.contrast(["a"], *single, 0), "ap")
    many = rows(contrast.contrast(list("abcdefghij"), *tenfold, 0), "ap")
    assert few["p"]["a"] < 0.1
    assert many["p"]["a"] == pytest.approx(10 * few["p"]["a"])
    assert many["p"][MACRO] == pytest.approx(few["p"][MACRO]) == pytest.approx(few["p"]["a"])


def first_column(which: Outcome, times: int) -> dict[str, np.ndarray]:
    names = ("targets", "log_odds", "decided", "constant")
    return {name: np.repeat(getattr(which, name)[:, :1], times, axis=1) for name in names}


def test_an_attribute_that_is_undefined_is_not_counted_as_a_test() -> None:
    one, other = pair(3, signals=(1.0, 0.6))
    one.targets[:, 1:] = other.targets[:, 1:] = np.nan
    found = rows(contrast.contrast(NAMES, one, other, 0), "ap")
    assert found["p"]["a"] == pytest.approx(found["p"][MACRO])


# Words.


def test_equal_models_do_not_differ() -> None:
    one, _ = pair(0)
    found = contrast.contrast(NAMES, one, one, 0)
    assert (found[["difference", "low", "high"]] == 0).all(axis=None)
    assert (found["p"] == 1).all()
    assert (found["word"] == SAME).all()


def test_a_better_ranking_is_better_and_swapped_it_is_worse() -> None:
    one, other = pair(0, n_images=240, signals=(2.0, 0.2))
    found, swapped = contrast.contrast(NAMES, one, other, 0), contrast.contrast(NAMES, other, one, 0)
    assert (found["word"] == BETTER).all()
    assert (found["low"] > 0).all()
    assert (swapped["word"] == WORSE).all()
    np.testing.assert_allclose(swapped["difference"], -found["difference"])
    np.testing.assert_allclose(swapped["low"], -found["high"])
    np.testing.assert_allclose(swapped["p"], found["p"])


def test_of_equal_rankings_the_better_calibrated_one_has_the_better_skill() -> None:
    """Ten times the log-odds: the same order and decisions, and a bold probability for each."""
    one, _ = pair(0, n_images=240)
    bold = dataclasses.replace(one, log_odds=10 * one.log_odds)
    found = contrast.contrast(NAMES, one, bold, 0)
    assert (rows(found, "skill")["word"] == BETTER).all()
    for score in ("ap", "roc_auc", "f1"):
        assert (rows(found, score)["word"] == SAME).all()
        assert (rows(found, score)["difference"] == 0).all()


@pytest.mark.parametrize("seed", range(5))
def test_models_that_differ_by_chance_do_not_differ(seed: int) -> None:
    """The share of words that are wrong is at most 5 % per score; all of five tables have none of AP."""
    found = contrast.contrast(NAMES, *pair(seed, n_images=200, signals=(0.7, 0.7)), seed)
    assert (rows(found, "ap")["word"] == SAME).all()
    assert (rows(found, "ap")["low"] < 0).all()
    assert (rows(found, "ap")["high"] > 0).all()


def test_pairs_are_far_more_exact_than_two_tables() -> None:
    """Two models that nearly agree on each image: what the sample does to one, it does to the other."""
    one, other = pair(0, n_images=200, noise=0.1)
    found = contrast.contrast(NAMES, one, other, 0)
    apart = []
    for seed, which in enumerate((one, other)):
        weights = resampling.draws(which.groups, 300, seed)
        given = (which.targets, which.log_odds, which.decided.astype(float), which.losses, which.constant_losses)
        apart.append(resampling.bootstrap(*given, weights))
    for score in ("ap", "roc_auc"):
        unpaired = np.hypot(*(values[score].std(axis=0) for values in apart))
        table = rows(found, score)
        assert (((table["high"] - table["low"]) / 2 / Z)[NAMES] < 0.5 * unpaired).all()


def test_near_duplicates_widen_the_interval() -> None:
    one, other = pair(0, n_images=60)
    both = [[np.repeat(getattr(which, name), 4, axis=0) for name in ("targets", "log_odds")] for which in (one, other)]
    widths = []
    for groups in (None, np.repeat(one.groups, 4)):
        found = contrast.contrast(NAMES, *(outcome_of(*values, groups) for values in both), 0)
        widths.append((found["high"] - found["low"]).to_numpy())
    # Groups of eight rows instead of one: the square root of 8, less what near-duplicates of other images differ.
    assert (widths[0] < 0.75 * widths[1]).all()


def test_same_seed_same_table() -> None:
    first, again, other = (contrast.contrast(NAMES, *pair(0), seed) for seed in (1, 1, 2))
    pd.testing.assert_frame_equal(first, again, check_exact=True)
    pd.testing.assert_series_equal(first["difference"], other["difference"], check_exact=True)
    assert (first["low"] != other["low"]).all()


def test_what_unknown_cells_hold_does_not_count() -> None:
    one, other = pair(0)
    unknown = np.isnan(one.targets)
    changed = dataclasses.replace(one, log_odds=np.where(unknown, 20, one.log_odds), decided=one.decided ^ unknown)
    expected = contrast.contrast(NAMES, one, other, 0)
    pd.testing.assert_frame_equal(contrast.contrast(NAMES, changed, other, 0), expected, check_exact=True)


# Where nothing can be said.


@pytest.mark.parametrize("label", [0.0, 1.0, np.nan])
def test_an_undefined_attribute_has_no_word(label: float) -> None:
    one, other = pair(0)
    for which in (one, other):
        which.targets[:, 1] = np.where(np.isnan(which.targets[:, 1]), np.nan, label)
    found = contrast.contrast(NAMES, one, other, 0)
    undefined = {"ap": True, "roc_auc": True, "f1": label != 1, "skill": math.isnan(label)}
    for score, empty in undefined.items():
        row = rows(found, score).loc["b"]
        assert (row["word"] == "") == empty
        assert row[["one", "other", "difference", "low", "high", "p"]].isna().all() == empty
        # The others, and the macro score over them, keep theirs.
        assert (rows(found, score)["word"][["a", "c", MACRO]] != "").all()


def test_no_known_label() -> None:
    nothing = outcome_of(np.full((6, 3), np.nan), np.zeros((6, 3)))
    found = contrast.contrast(NAMES, nothing, nothing, 0)
    assert len(found) == 16
    assert (found["word"] == "").all()
    assert found[["difference", "low", "high", "p"]].isna().all(axis=None)


def test_one_image() -> None:
    one, other = (outcome_of(np.array([[1.0]]), np.array([[score]])) for score in (2.0, -1.0))
    found = contrast.contrast(["a"], one, other, 0)
    assert (rows(found, "ap")["word"] == "").all()
    assert rows(found, "skill")["difference"]["a"] > 0
    # One image, or one group of near-duplicates, says nothing about others.
    assert (found["word"].isin(["", SAME])).all()


def test_a_difference_without_an_interval_has_no_word() -> None:
    """Of 20 images one is present and one absent: six resamples of ten lack one of them."""
    targets = np.full((20, 1), np.nan)
    targets[:2, 0] = 1, 0
    scores = np.linspace(1, -1, 20)[:, None]
    found = rows(contrast.contrast(["a"], outcome_of(targets, scores), outcome_of(targets, -scores), 0), "roc_auc")
    assert (found["difference"] == 1).all()
    assert found[["low", "high", "p"]].isna().all(axis=None)
    assert (found["word"] == "").all()


@pytest.mark.parametrize("score", ["roc_auc", "f1"])
def test_perfect_next_to_constant_is_not_called_equal(score: str) -> None:
    targets = np.repeat([[1.0], [0.0]], 50, axis=0)
    found = contrast.contrast(["a"], outcome_of(targets, 2 * targets - 1), outcome_of(targets, np.full((100, 1), -1.0)), 0)
    assert (rows(found, score)["difference"] >= 0.5).all()
    assert (rows(found, score)["word"] != SAME).all()


def test_rounding_does_not_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence, "RESAMPLES", 2000)
    targets = np.repeat([[1.0], [0.0]], 50, axis=0).repeat(3, axis=1)
    perfect, constant_in_one = 2 * targets - 1, (2 * targets - 1) * [0.0, 1, 1]
    found = rows(contrast.contrast(NAMES, outcome_of(targets, perfect), outcome_of(targets, constant_in_one), 0), "roc_auc")
    assert found["difference"]["a"] == 0.5
    assert found["difference"][MACRO] == pytest.approx(0.5 / 3)
    assert found["word"][MACRO] == found["word"]["a"]


def test_an_attribute_may_be_called_like_the_macro_row() -> None:
    found = contrast.contrast(["a", MACRO, "c"], *pair(0), 0)
    expected = contrast.contrast(NAMES, *pair(0), 0)
    pd.testing.assert_frame_equal(found.drop(columns="attribute"), expected.drop(columns="attribute"))
