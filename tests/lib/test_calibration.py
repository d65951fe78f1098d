"""Temperatures on simulated labels; calibration error, Brier score and reliability against slow loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from stages.lib import calibration, decisions, loss


def simulated(
    seed: int, n_images: int, rate_logit: float, true_t: np.ndarray, known: float = 0.7
) -> tuple[np.ndarray, np.ndarray]:
    """Targets with NaN, and log-odds that dividing by `true_t` (n_attributes,) makes right."""
    chance = np.random.default_rng(seed)
    right = rate_logit + 1.5 * chance.normal(size=(n_images, len(true_t)))
    targets = (chance.random(right.shape) < decisions.probabilities(right)).astype(float)
    targets[chance.random(right.shape) > known] = np.nan
    return targets, right * true_t


def mean_loss(targets: np.ndarray, log_odds: np.ndarray) -> float:
    return float(np.nanmean(loss.cells(log_odds, targets, np.ones(targets.shape[1]))))


def found_for(targets: np.ndarray, log_odds: np.ndarray) -> np.ndarray:
    """Temperatures where no image has a near-duplicate."""
    return calibration.temperatures(targets, log_odds, np.arange(len(targets)))


@pytest.mark.parametrize("rate_logit", [-3.3, -1.2])  # about 7 and 30 % positive
@pytest.mark.parametrize("true_t", [0.5, 1.0, 2.0, 3.0])
def test_scaling_lowers_the_loss_of_new_rows_or_costs_little(true_t: float, rate_logit: float) -> None:
    gains = []
    for seed in range(8):
        targets, log_odds = simulated(seed, 100, rate_logit, np.full(6, true_t))
        new_targets, new = simulated(1000 + seed, 2000, rate_logit, np.full(6, true_t), known=1)
        temperature = found_for(targets, log_odds)
        gains.append(mean_loss(new_targets, new) - mean_loss(new_targets, new / temperature))
    # The 480 simulations behind the docstring gave a mean gain of 0.039 or more, and a mean cost of 0.002 at T = 1.
    assert np.mean(gains) > (-0.006 if true_t == 1 else 0.03)


def test_many_labels_give_every_attribute_its_own_temperature() -> None:
    true_t = np.array([0.5, 1.0, 3.0])
    found = found_for(*simulated(0, 4000, -1.2, true_t))
    np.testing.assert_allclose(found, true_t, rtol=0.15)  # about three standard errors


def test_few_labels_stay_nearer_to_the_shared_temperature_than_many() -> None:
    true_t = np.array([0.7, 2.8] * 4)
    spread = {n: np.mean([np.log(found_for(*simulated(seed, n, -1.2, true_t))).std() for seed in range(5)]) for n in (60, 2000)}
    assert spread[2000] == pytest.approx(np.log(true_t).std(), rel=0.1)
    assert 0.2 * spread[2000] < spread[60] < 0.8 * spread[2000]


def test_one_attribute_alone_gets_the_temperature_of_the_lowest_loss() -> None:
    """The shared and the own temperature are then one: a search without a grid finds it too."""
    targets, log_odds = simulated(3, 300, -1.2, np.array([2.5]))
    best = minimize_scalar(lambda t: mean_loss(targets, log_odds / t), bounds=(0.2, 10), method="bounded").x
    assert found_for(targets, log_odds)[0] == pytest.approx(best, rel=0.011)  # half a step of the grid


def test_near_duplicates_do_not_vouch_for_each_other() -> None:
    """Two images, 50 copies each: only where copies lie on both sides of a fold does a scaled loss look better."""
    targets, log_odds = np.repeat([1.0, 0.0], 50)[:, None], np.full((100, 1), 2.0)
    assert found_for(targets, log_odds)[0] > 9
    assert calibration.temperatures(targets, log_odds, np.repeat([0, 50], 50))[0] == 1


def test_unknown_cells_do_not_shape_the_temperature_and_repeats_agree() -> None:
    targets, log_odds = simulated(1, 100, -1.2, np.array([3.0, 1.0, 2.0]))
    other = np.where(np.isnan(targets), 5.0, log_odds)
    np.testing.assert_array_equal(found_for(targets, log_odds), found_for(targets, other))
    np.testing.assert_array_equal(found_for(targets, log_odds), found_for(targets, log_odds))


@pytest.mark.parametrize("label", [0.0, 1.0, np.nan])
def test_an_attribute_without_both_classes_gets_the_shared_temperature(label: float) -> None:
    targets, log_odds = simulated(1, 300, -1.2, np.array([3.0, 3.0]))
    targets = np.column_stack([targets, np.full(300, label)])
    # Log-odds near 0: right or wrong they barely count, so the shared temperature is the others' 3.
    found = found_for(targets, np.column_stack([log_odds, np.full(300, 1e-9)]))
    assert found[2] == pytest.approx(3, rel=0.2)
    # Between the two others, each of which was drawn towards it.
    assert min(found[:2]) <= found[2] <= max(found[:2])


DEGENERATE = {
    "nothing known": (np.full((20, 2), np.nan), 1.0),
    "no positive": (np.zeros((20, 2)), 1.0),
    "no negative": (np.ones((20, 2)), 1.0),
    "no image": (np.empty((0, 2)), 1.0),
    "one image": (np.array([[1.0, 0.0]]), 1.0),
    "all log-odds 0": (np.tile([[0.0, 1.0], [1.0, 0.0]], (10, 1)), 0.0),
}


@pytest.mark.parametrize(("targets", "scale"), DEGENERATE.values(), ids=DEGENERATE.keys())
def test_nothing_to_learn_from_means_no_scaling(targets: np.ndarray, scale: float) -> None:
    log_odds = scale * np.random.default_rng(0).normal(size=targets.shape)
    np.testing.assert_array_equal(found_for(targets, log_odds), [1, 1])


@pytest.mark.parametrize("size", [1e-6, 1.0, 700.0, 1e6])
def test_perfectly_separated_and_huge_log_odds_give_finite_temperatures(size: float) -> None:
    targets = np.tile([[0.0], [1.0]], (30, 2))
    for sign in (1, -1):
        found = found_for(targets, sign * size * (2 * targets - 1))
        assert ((found >= 0.2) & (found <= 10)).all()


def drawn(seed: int, ties: bool) -> tuple[np.ndarray, np.ndarray]:
    """Targets with NaN and probabilities, 43 images: bins cannot all be of one size."""
    chance = np.random.default_rng(seed)
    targets = (chance.random((43, 3)) < [0.1, 0.5, 0.9]).astype(float)
    targets[chance.random((43, 3)) < 0.3] = np.nan
    found = chance.random((43, 3))
    return targets, np.round(found, 1) if ties else found


def slow_ece(truth: np.ndarray, probability: np.ndarray, bins: int) -> float:
    """Deal the sorted cells to bins, then give a tied cell the bin of the first of its equals."""
    pairs = sorted((p, t) for p, t in zip(probability, truth, strict=True) if not math.isnan(t))
    held: dict[int, list[tuple[float, float]]] = {}
    number = 0
    for place, (p, t) in enumerate(pairs):
        if place == 0 or p != pairs[place - 1][0]:
            number = place * bins // len(pairs)
        held.setdefault(number, []).append((p, t))
    gaps = [len(bin_) * abs(sum(p for p, _ in bin_) / len(bin_) - sum(t for _, t in bin_) / len(bin_)) for bin_ in held.values()]
    return sum(gaps) / len(pairs)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("bins", [1, 4, 10, 100])
def test_calibration_error_and_brier_score_against_loops(bins: int, ties: bool) -> None:
    targets, probabilities = drawn(bins, ties)
    found, squares = calibration.ece(targets, probabilities, bins), calibration.brier(targets, probabilities)
    for column in range(3):
        truth, probability = targets[:, column], probabilities[:, column]
        assert found[column] == pytest.approx(slow_ece(truth, probability, bins), rel=1e-9)
        expected = [(p - t) ** 2 for p, t in zip(probability, truth, strict=True) if not math.isnan(t)]
        assert squares[column] == pytest.approx(sum(expected) / len(expected), rel=1e-12)


def test_calibration_error_by_hand() -> None:
    targets = np.array([[0.0], [1.0], [1.0], [1.0], [np.nan]])
    probabilities = np.array([[0.1], [0.3], [0.6], [0.8], [0.9]])
    assert calibration.ece(targets, probabilities, bins=2)[0] == pytest.approx((abs(0.2 - 0.5) + abs(0.7 - 1)) / 2)
    # One constant is one bin however many are wanted: right on average is an error of 0.
    assert calibration.ece(targets, np.full((5, 1), 0.75))[0] == 0
    assert calibration.ece(targets, np.where(targets == 1, 1.0, 0.0))[0] == 0


def test_without_a_known_cell_figures_are_undefined_and_there_is_no_row() -> None:
    targets, probabilities = np.array([[np.nan, 1.0], [np.nan, np.nan]]), np.full((2, 2), 0.8)
    np.testing.assert_allclose(calibration.ece(targets, probabilities), [np.nan, 0.2])
    np.testing.assert_allclose(calibration.brier(targets, probabilities), [np.nan, 0.04])
    assert list(calibration.reliability(["a", "b"], targets, probabilities)["attribute"]) == ["b"]
    empty = calibration.reliability(["a"], np.empty((0, 1)), np.empty((0, 1)))
    assert list(empty.columns) == ["attribute", "bin", "images", "predicted", "observed", "low", "high"]
    assert len(empty) == 0


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("bins", [1, 4, 10, 100])
def test_the_reliability_table_gives_the_calibration_error(bins: int, ties: bool) -> None:
    targets, probabilities = drawn(bins, ties)
    table = calibration.reliability(["a", "b", "c"], targets, probabilities, bins)
    found = calibration.ece(targets, probabilities, bins)
    for column, name in enumerate(["a", "b", "c"]):
        rows = table[table["attribute"] == name]
        known = ~np.isnan(targets[:, column])
        assert rows["images"].sum() == known.sum()
        assert list(rows["bin"]) == list(range(1, len(rows) + 1))
        assert (np.diff(rows["predicted"]) > 0).all()
        gap = (rows["predicted"] - rows["observed"]).abs()
        assert (gap * rows["images"]).sum() / rows["images"].sum() == pytest.approx(found[column], rel=1e-9)
        if not ties and bins <= known.sum():
            assert rows["images"].max() - rows["images"].min() <= 1
            assert len(rows) == bins


def test_intervals_are_those_of_wilson() -> None:
    """Both ends q solve |observed - q| = z * sqrt(q * (1 - q) / images)."""
    targets, probabilities = drawn(2, ties=True)
    for row in calibration.reliability(["a", "b", "c"], targets, probabilities).itertuples():
        assert row.low <= row.observed <= row.high
        for end in (row.low, row.high):
            assert abs(row.observed - end) == pytest.approx(1.959964 * math.sqrt(end * (1 - end) / row.images), abs=1e-6)
