"""Thresholds for each goal against every threshold there is; what decisions achieve against slow counts."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from stages.lib import goals


def slow_scores(truth: np.ndarray, score: np.ndarray, threshold: float) -> dict[str, float]:
    """Precision, recall and F1 of `score >= threshold` over known labels; NaN where undefined."""
    hits = false_alarms = missed = 0
    for label, value in zip(truth, score, strict=True):
        hits += label == 1 and value >= threshold
        false_alarms += label == 0 and value >= threshold
        missed += label == 1 and value < threshold
    called, positive = hits + false_alarms, hits + missed
    return {
        "precision": hits / called if called else math.nan,
        "recall": hits / positive if positive else math.nan,
        "f1": 2 * hits / (called + positive) if positive else math.nan,
    }


def drawn(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels with NaN and scores in (0, 1), with ties where the seed is odd."""
    chance = np.random.default_rng(seed)
    truth = (chance.random(25) < chance.uniform(0.1, 0.9)).astype(float)
    truth[:2] = [0, 1]
    truth[2:][chance.random(23) < 0.3] = np.nan
    score = np.clip(chance.random(25), 0.06, 0.94)
    return truth, np.round(score, 1) if seed % 2 else score


def every_threshold(truth: np.ndarray, score: np.ndarray) -> list[tuple[float, dict[str, float]]]:
    """Each known score as a threshold, rising, with its scores; others decide as one of these or call nothing."""
    known = np.unique(score[~np.isnan(truth)])
    return [(float(value), slow_scores(truth, score, value)) for value in known]


def decides_alike(truth: np.ndarray, score: np.ndarray, one: float, two: float) -> bool:
    known = ~np.isnan(truth)
    return bool(((score >= one) == (score >= two))[known].all())


@pytest.mark.parametrize("seed", range(20))
def test_no_threshold_has_a_better_f1(seed: int) -> None:
    truth, score = drawn(seed)
    found, reached = goals.threshold_for(truth, score, "f1", 0.9, 0.5)
    best = max(of["f1"] for _, of in every_threshold(truth, score))
    assert slow_scores(truth, score, found)["f1"] == pytest.approx(best, rel=1e-12)
    assert reached


@pytest.mark.parametrize(("seed", "minimum"), itertools.product(range(20), [0.0, 0.5, 0.6, 0.75, 0.9, 1.0]))
def test_a_wanted_precision_is_met_with_the_most_recall(seed: int, minimum: float) -> None:
    truth, score = drawn(seed)
    found, reached = goals.threshold_for(truth, score, "precision", minimum, 0.5)
    options = every_threshold(truth, score)
    enough = [(of["recall"], value) for value, of in options if of["precision"] >= minimum]
    # Of equal recall the higher threshold; where none is precise enough, the best precision with the most recall.
    closest = [(of["precision"], of["recall"], value) for value, of in options]
    expected = max(enough)[1] if enough else max(closest)[2]
    assert reached == bool(enough)
    assert decides_alike(truth, score, found, expected)


@pytest.mark.parametrize(("seed", "minimum"), itertools.product(range(20), [0.0, 0.3, 0.5, 0.75, 0.9, 1.0]))
def test_a_wanted_recall_is_met_by_the_highest_threshold(seed: int, minimum: float) -> None:
    truth, score = drawn(seed)
    found, reached = goals.threshold_for(truth, score, "recall", minimum, 0.5)
    expected = max(value for value, of in every_threshold(truth, score) if of["recall"] >= minimum)
    assert reached
    assert decides_alike(truth, score, found, expected)


def test_a_precision_that_no_threshold_has() -> None:
    truth, score = np.array([0.0, 1.0, 1.0, 0.0]), np.array([0.9, 0.7, 0.5, 0.2])
    assert goals.threshold_for(truth, score, "precision", 0.9, 0.5) == (pytest.approx(0.35), False)
    assert goals.threshold_for(truth, score, "precision", 2 / 3, 0.5) == (pytest.approx(0.35), True)


@pytest.mark.parametrize("minimum", [0.1, 0.3, 0.6, 0.7, 0.9])
def test_a_share_that_equals_the_minimum_is_enough(minimum: float) -> None:
    tenths = round(10 * minimum)
    truth, score = np.ones(11), np.linspace(0.9, 0.1, 11)
    truth[10] = 0
    found, reached = goals.threshold_for(truth, score, "recall", minimum, 0.5)
    assert reached
    assert (score >= found).sum() == tenths
    order = np.concatenate([np.zeros(10 - tenths), np.ones(tenths)])
    found, reached = goals.threshold_for(order, score[:10], "precision", minimum, 0.5)
    assert reached
    assert (score[:10] >= found).all()


@pytest.mark.parametrize(("seed", "goal"), itertools.product(range(6), ["f1", "precision", "recall"]))
def test_unknown_labels_do_not_shape_the_threshold(seed: int, goal: str) -> None:
    truth, score = drawn(seed)
    unknown = np.isnan(truth)
    assert unknown.any()
    found = goals.threshold_for(truth, score, goal, 0.7, 0.5)
    assert goals.threshold_for(truth[~unknown], score[~unknown], goal, 0.7, 0.5) == found
    assert goals.threshold_for(truth, np.where(unknown, 0.123, score), goal, 0.7, 0.5) == found


@pytest.mark.parametrize("goal", ["f1", "precision", "recall"])
def test_the_threshold_lies_between_two_scores(goal: str) -> None:
    truth, score = np.array([0.0, 0.0, 1.0, 1.0]), np.array([0.1, 0.4, 0.6, 0.9])
    assert goals.threshold_for(truth, score, goal, 1.0, 0.5) == (pytest.approx(0.5), True)
    # Where everything is best called present there is no lower score: the threshold is the lowest one.
    assert goals.threshold_for(np.array([1.0, 0.0]), np.array([0.2, 0.8]), goal, 0.5, 0.7) == (0.2, True)


@pytest.mark.parametrize("goal", ["f1", "precision", "recall"])
def test_scores_that_are_neighbours_as_floats_are_kept_apart(goal: str) -> None:
    low = 1 - 2**-52
    for below in (low, 0.3, float(np.nextafter(0.3, 1)), 0.0, 5e-324):
        above = np.nextafter(below, 2.0)
        found, _ = goals.threshold_for(np.array([0.0, 1.0]), np.array([below, above]), goal, 0.9, 0.5)
        assert below < found <= above
        assert 0 < found < 1


@pytest.mark.parametrize(("goal", "minimum"), itertools.product(["f1", "precision", "recall"], [0.0, 0.5, 1.0]))
@pytest.mark.parametrize("ends", [[0.0], [1.0], [0.0, 1.0], [1.0, 1 - 2**-53], [0.0, 5e-324, 1 - 2**-53, 1.0]])
def test_thresholds_lie_between_0_and_1_and_reached_is_true_of_them(ends: list[float], goal: str, minimum: float) -> None:
    for labels in itertools.product([0.0, 1.0], repeat=2 * len(ends)):
        truth, score = np.array(labels), np.array(ends * 2)
        found, reached = goals.threshold_for(truth, score, goal, minimum, 0.37)
        assert 0 < found < 1
        if reached and goal != "f1":
            assert slow_scores(truth, score, found)[goal] >= minimum


def test_a_positive_with_a_score_of_0_cannot_be_found() -> None:
    truth, score = np.array([1.0, 1.0, 0.0]), np.array([0.0, 0.6, 0.2])
    assert goals.threshold_for(truth, score, "recall", 1.0, 0.5) == (pytest.approx(0.1), False)
    assert goals.threshold_for(np.array([1.0, 0.0]), np.zeros(2), "recall", 0.5, 0.37) == (0.37, False)


@pytest.mark.parametrize("goal", goals.GOALS)
@pytest.mark.parametrize("truth", [[0, 0, np.nan], [1, 1, np.nan], [np.nan] * 3, [1], []])
def test_without_both_classes_the_fallback_is_the_threshold(truth: list[float], goal: str) -> None:
    score = np.linspace(0.1, 0.9, len(truth))
    assert goals.threshold_for(np.array(truth, dtype=float), score, goal, 0.8, 0.37) == (0.37, goal == "fixed")


def test_a_goal_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="goal is 'f2', not one of f1, precision, recall, fixed"):
        goals.threshold_for(np.array([0.0, 1.0]), np.array([0.1, 0.9]), "f2", 0.8, 0.5)


@pytest.mark.parametrize("goal", goals.GOALS)
def test_thresholds_of_every_attribute(goal: str) -> None:
    columns = [drawn(seed) for seed in range(3)]
    columns[1][0][:] = np.nan
    targets, scores = (np.stack([column[part] for column in columns], axis=1) for part in (0, 1))
    chosen, reached = goals.thresholds(targets, scores, goal, 0.8, 0.4)
    expected = [goals.threshold_for(truth, score, goal, 0.8, 0.4) for truth, score in columns]
    assert list(zip(chosen, reached, strict=True)) == expected
    chosen, reached = goals.thresholds(np.empty((3, 0)), np.empty((3, 0)), goal, 0.8, 0.4)
    assert (chosen.shape, reached.shape, reached.dtype) == ((0,), (0,), bool)


@pytest.mark.parametrize(("goal", "threshold"), itertools.product(goals.GOALS, [0.0, 0.5, 2.0]))
def test_achieved_scores_of_known_cells(goal: str, threshold: float) -> None:
    columns = [drawn(seed) for seed in range(5)]
    columns[1][0][columns[1][0] == 1] = 0
    columns[2][0][:] = np.nan
    targets, scores = (np.stack([column[part] for column in columns], axis=1) for part in (0, 1))
    expected = [slow_scores(t, s, threshold)["f1" if goal == "fixed" else goal] for t, s in columns]
    for decided in (scores >= threshold, (scores >= threshold).astype(float)):
        np.testing.assert_allclose(goals.achieved(targets, decided, goal), expected, rtol=1e-12)
