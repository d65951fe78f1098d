"""Thresholds, AP, ROC-AUC and the curves against scikit-learn, tied scores and degenerate labels among them."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as sk

from stages.lib import ranking


def drawn(seed: int, ties: bool, n_images: int = 40) -> tuple[np.ndarray, np.ndarray]:
    chance = np.random.default_rng(seed)
    truth = (chance.random(n_images) < 0.3).astype(float)
    truth[:2] = 0, 1
    score = chance.normal(size=n_images) + truth
    return truth, score.round(0 if ties else 12)


CASES = [(seed, ties) for seed in range(5) for ties in (False, True)]


@pytest.mark.parametrize(("seed", "ties"), CASES)
def test_scores_and_curves_are_those_of_scikit_learn(seed: int, ties: bool) -> None:
    truth, score = drawn(seed, ties)
    counts = ranking.above(truth, score)
    assert ranking.ap(*counts)[0] == pytest.approx(sk.average_precision_score(truth, score), rel=1e-12)
    assert ranking.auc(*counts)[0] == pytest.approx(sk.roc_auc_score(truth, score), rel=1e-12)
    precision, recall, thresholds = sk.precision_recall_curve(truth, score)
    found = ranking.precision_recall(truth, score)
    np.testing.assert_allclose(found, [precision[:-1][::-1], recall[:-1][::-1], thresholds[::-1]], rtol=1e-12)
    false_rate, true_rate, _ = sk.roc_curve(truth, score, drop_intermediate=False)
    every = list(zip(false_rate.round(9), true_rate.round(9), strict=True))
    fewer = list(zip(*(rate.round(9) for rate in ranking.roc(truth, score)), strict=True))
    assert (fewer[0], fewer[-1]) == ((0, 0), (1, 1))
    places = [every.index(point) for point in fewer]
    assert places == sorted(places)
    for place, point in enumerate(every):  # what was left out lies on the line between its neighbours
        after = np.searchsorted(places, place)
        (x0, y0), (x1, y1) = (every[places[max(0, after - 1)]], every[places[after]])
        assert point in fewer or (point[0] - x0) * (y1 - y0) == pytest.approx((point[1] - y0) * (x1 - x0), abs=1e-8)
    assert ties or len(fewer) < len(every)


@pytest.mark.parametrize(("seed", "ties"), CASES)
def test_weights_are_repetitions_of_images(seed: int, ties: bool) -> None:
    truth, score = drawn(seed, ties)
    weights = np.random.default_rng(seed).integers(0, 4, (3, len(truth)))
    weights[:, :2] += 1
    hits, called = ranking.above(truth, score, weights)
    for row, repeats in enumerate(weights):
        again, anew = np.repeat(truth, repeats), np.repeat(score, repeats)
        assert ranking.ap(hits, called)[row] == pytest.approx(sk.average_precision_score(again, anew), rel=1e-12)
        assert ranking.auc(hits, called)[row] == pytest.approx(sk.roc_auc_score(again, anew), rel=1e-12)


@pytest.mark.parametrize("truth", [[], [1.0], [0.0], [1.0, 1.0], [0.0, 0.0, 0.0]])
def test_without_both_classes_no_score_is_defined(truth: list[float]) -> None:
    counts = ranking.above(np.array(truth), np.arange(len(truth), dtype=float))
    assert np.isnan(ranking.ap(*counts)).all()
    assert np.isnan(ranking.auc(*counts)).all()


def test_many_images_do_not_overflow_their_counts() -> None:
    truth = np.ones(70_000)
    truth[0] = 0
    hits, called = ranking.above(truth, np.arange(70_000.0))
    assert (hits[0, -1], called[0, -1]) == (69_999, 70_000)
