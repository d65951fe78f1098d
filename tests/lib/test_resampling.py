"""Resampled scores against literal resampling, permutations against explicit ones, and where they are undefined."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from sklearn import metrics as sk

from stages.lib import resampling

NAMES = ("ap", "ap_gain", "roc_auc", "f1", "skill")


def drawn(seed: int, n_images: int = 40, n_attributes: int = 3) -> dict[str, np.ndarray]:
    """Arguments of `bootstrap` but the weights: targets with NaN, scores with ties, losses NaN where unknown."""
    chance = np.random.default_rng(seed)
    shape = (n_images, n_attributes)
    targets = (chance.random(shape) < np.linspace(0.1, 0.7, n_attributes)).astype(float)
    targets[chance.random(shape) < 0.3] = np.nan
    scores = np.round(chance.random(shape), 1)
    unknown = np.isnan(targets)
    losses, constant = (np.where(unknown, np.nan, chance.exponential(size=shape)) for _ in range(2))
    decided = (scores >= 0.6).astype(float)
    return {"targets": targets, "scores": scores, "decided": decided, "losses": losses, "constant_losses": constant}


def slow_scores(
    truth: np.ndarray, score: np.ndarray, decided: np.ndarray, losses: np.ndarray, constant: np.ndarray
) -> list[float]:
    """The five scores of one attribute by scikit-learn, from rows that are really there several times."""
    both = 0 < truth.sum() < len(truth)
    ap = sk.average_precision_score(truth, score) if both else math.nan
    auc = sk.roc_auc_score(truth, score) if both else math.nan
    f1 = sk.f1_score(truth, decided) if truth.sum() else math.nan
    skill = 1 - losses.sum() / constant.sum() if len(truth) else math.nan
    return [ap, ap - truth.mean() if both else math.nan, auc, f1, skill]


# Draws.


def test_groups_are_drawn_together_and_as_many_as_there_are() -> None:
    groups = np.array([7, 3, 7, 9, 9, 9, 100])
    weights = resampling.draws(groups, 200, seed=0)
    assert weights.shape == (200, 7)
    assert np.issubdtype(weights.dtype, np.unsignedinteger)
    assert weights.dtype.itemsize <= 2
    for group in np.unique(groups):
        own = weights[:, groups == group]
        assert (own == own[:, :1]).all()
    _, first = np.unique(groups, return_index=True)
    assert (weights[:, first].sum(axis=1) == 4).all()


def test_each_group_is_drawn_as_often_as_another() -> None:
    """A count has mean 1 and variance 1 - 1 / n_groups, as the multinomial has."""
    weights = resampling.draws(np.arange(20), 20_000, seed=1)
    # Standard errors are 0.007 and about 0.011; four of them.
    np.testing.assert_allclose(weights.mean(axis=0), 1, atol=0.028)
    np.testing.assert_allclose(weights.var(axis=0), 0.95, atol=0.05)


def test_same_seed_same_draws() -> None:
    groups = np.arange(30) // 2
    first, again, other = (resampling.draws(groups, 20, seed) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@pytest.mark.parametrize("groups", [[], [4], [2, 2, 2]], ids=["no image", "one image", "one group"])
def test_draws_of_one_group_are_that_group(groups: list[int]) -> None:
    weights = resampling.draws(np.array(groups, dtype=int), 5, seed=0)
    np.testing.assert_array_equal(weights, np.ones((5, len(groups))))


# Scores of one attribute.


@pytest.mark.parametrize("whole", [True, False], ids=["counts", "fractions"])
@pytest.mark.parametrize("digits", [1, 15], ids=["ties", "no ties"])
@pytest.mark.parametrize("seed", range(3))
def test_scores_are_those_of_scikit_learn_with_weights(seed: int, digits: int, whole: bool) -> None:
    chance = np.random.default_rng(seed)
    truth, score = (chance.random(25) < 0.4).astype(float), np.round(chance.random(25), digits)
    weights = resampling.draws(np.arange(25), 30, seed) if whole else chance.random((30, 25))
    decided, losses, constant = (score >= 0.5).astype(float), chance.exponential(size=25), chance.exponential(size=25)
    found = (
        *resampling.weighted_ranking(truth, score, weights),
        resampling.weighted_f1(truth, decided, weights),
        resampling.weighted_skill(losses, constant, weights),
    )
    for row, weight in enumerate(weights):
        expected = (
            ap := sk.average_precision_score(truth, score, sample_weight=weight),
            ap - (weight * truth).sum() / weight.sum(),
            sk.roc_auc_score(truth, score, sample_weight=weight),
            sk.f1_score(truth, decided, sample_weight=weight),
            1 - (weight * losses).sum() / (weight * constant).sum(),
        )
        # Sums in another order: the last digits differ.
        np.testing.assert_allclose([values[row] for values in found], expected, rtol=1e-10)


DRAWN = {  # weights of [present, absent, present] -> are AP and ROC-AUC defined, is F1, is skill
    "both": ([1, 2, 0], True, True, True),
    "no positive": ([0, 2, 0], False, False, True),
    "no negative": ([1, 0, 3], False, True, True),
    "nothing": ([0, 0, 0], False, False, False),
}


@pytest.mark.parametrize(("weights", "ranking", "f1", "skill"), DRAWN.values(), ids=DRAWN.keys())
def test_where_scores_of_a_resample_are_undefined(weights: list[int], ranking: bool, f1: bool, skill: bool) -> None:
    truth, score = np.array([1.0, 0, 1]), np.array([0.9, 0.5, 0.1])
    row = np.array([weights], dtype=np.uint8)
    for values in resampling.weighted_ranking(truth, score, row):
        assert np.isnan(values[0]) == (not ranking)
    assert np.isnan(resampling.weighted_f1(truth, np.ones(3), row)[0]) == (not f1)
    assert np.isnan(resampling.weighted_skill(score, score, row)[0]) == (not skill)


def test_counts_do_not_overflow() -> None:
    """Sums of many small counts, and products of such sums, must not wrap around."""
    truth = np.repeat([1.0, 0.0], 60_000)
    weights = np.full((1, 120_000), 200, np.uint8)
    score = np.tile([0.3, 0.7], 60_000)
    ap, ap_gain, auc = resampling.weighted_ranking(truth, score, weights)
    assert (ap[0], ap_gain[0], auc[0]) == pytest.approx((0.5, 0.0, 0.5))
    assert resampling.weighted_f1(truth, np.ones(120_000), weights)[0] == pytest.approx(2 / 3)


# Intervals.


def test_interval_is_normal_on_the_logarithm_of_what_is_missing_to_one() -> None:
    values = np.random.default_rng(0).beta(160, 40, 500)
    missing = [math.log(1 - value) for value in values]
    mean = sum(missing) / 500
    spread = math.sqrt(sum((each - mean) ** 2 for each in missing) / 500)
    for point, centre in ((0.8, 2 * math.log(0.2) - mean), (None, mean)):
        for level, z in ((0.95, 1.959964), (0.5, 0.67449)):
            found = resampling.interval(values, level, point)
            assert found.low == pytest.approx(1 - math.exp(centre + z * spread), rel=1e-5)
            assert found.high == pytest.approx(1 - math.exp(centre - z * spread), rel=1e-5)


def test_interval_takes_the_bias_of_resampling_away_twice() -> None:
    """Once because the sample is biased as its resamples are, and once for the resamples themselves."""
    values = 1 - np.exp(-np.random.default_rng(0).normal(1.0, 0.1, 20_000))
    point = 1 - math.exp(-0.9)
    found = resampling.interval(values, point=point)
    # Mean 1 instead of 0.9: the centre is 0.8. The standard error of a mean of 20,000 is 0.0007.
    ends = [-math.log(1 - end) for end in (found.low, found.high)]
    assert sum(ends) / 2 == pytest.approx(0.8, abs=0.003)
    assert (ends[1] - ends[0]) / 2 == pytest.approx(0.196, abs=0.003)


def test_interval_leaves_undefined_values_out() -> None:
    values = np.random.default_rng(0).random(100)
    half = np.append(values, np.full(100, np.nan))
    assert resampling.interval(half, point=0.5) == resampling.interval(values, point=0.5)
    for undefined in (np.append(half, np.nan), np.array([]), np.full(3, np.nan)):
        found = resampling.interval(undefined, point=0.5)
        assert math.isnan(found.low)
        assert math.isnan(found.high)


def test_interval_of_an_undefined_score_is_undefined() -> None:
    for values in (np.linspace(0, 0.9, 10), np.ones(10)):
        found = resampling.interval(values, point=math.nan)
        assert math.isnan(found.low)
        assert math.isnan(found.high)


def test_interval_of_perfect_scores() -> None:
    assert resampling.interval(np.ones(10), point=1.0) == resampling.Interval(1, 1)
    mixed = resampling.interval(np.repeat([0.9, 0.99, 1.0], 5), point=0.99)
    # A score of 1 counts as the best below it.
    assert mixed == resampling.interval(np.repeat([0.9, 0.99], [5, 10]), point=0.99)
    assert mixed.low < 0.99 < mixed.high < 1


def test_interval_ends_at_the_worst_resample_moved_by_the_bias() -> None:
    """One misplaced picture: resamples without it are all but perfect, and no resample comes near what their spread makes."""
    values = np.repeat([1 - 1e-9, 0.97, 0.94], [40, 40, 20])
    found = resampling.interval(values, point=0.96)
    bias = values.mean() - 0.96
    assert bias > 0
    assert found.low == pytest.approx(0.94 - bias)
    assert resampling.interval(values, point=0.99).low == pytest.approx(0.94)  # a bias the other way moves nothing


def test_interval_ends_at_the_lowest_possible_score() -> None:
    values = np.random.default_rng(0).beta(1, 9, 500)
    assert resampling.interval(values, point=0.05).low < 0
    assert resampling.interval(values, point=0.05, floor=0.0).low == 0
    assert resampling.interval(values - 1, point=-0.9).high < 0


# All attributes.


@pytest.mark.parametrize("block", [1, 100, 2**18])
@pytest.mark.parametrize("seed", range(2))
def test_bootstrap_is_literal_resampling(seed: int, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resampling, "BLOCK", block)
    data = drawn(seed)
    weights = resampling.draws(np.arange(40) // 2, 25, seed)
    found = resampling.bootstrap(**data, weights=weights)
    assert set(found) == {*NAMES, *(f"{name}_macro" for name in NAMES)}
    for row, weight in enumerate(weights):
        rows = np.repeat(np.arange(40), weight)
        expected = []
        for column in range(3):
            known = rows[~np.isnan(data["targets"][rows, column])]
            expected.append(slow_scores(*(values[known, column] for values in data.values())))
        for index, name in enumerate(NAMES):
            own = [scores[index] for scores in expected]
            np.testing.assert_allclose(found[name][row], own, rtol=1e-10, atol=1e-12)
            if name != "skill":
                defined = [value for value in own if not math.isnan(value)]
                mean = sum(defined) / len(defined) if defined else math.nan
                np.testing.assert_allclose(found[f"{name}_macro"][row], mean, rtol=1e-10, atol=1e-12)
        overall = 1 - np.nansum(data["losses"][rows]) / np.nansum(data["constant_losses"][rows])
        assert found["skill_macro"][row] == pytest.approx(overall, rel=1e-10)


def test_what_unknown_cells_hold_does_not_count() -> None:
    data, weights = drawn(4), resampling.draws(np.arange(40), 20, 0)
    unknown = np.isnan(data["targets"])
    other = {name: np.where(unknown, np.nan, values) for name, values in data.items()}
    one, two = resampling.bootstrap(**data, weights=weights), resampling.bootstrap(**other, weights=weights)
    for name in one:
        np.testing.assert_array_equal(one[name], two[name])


LABELS = {  # targets of one attribute -> names that are undefined
    "all unknown": ([np.nan] * 4, set(NAMES)),
    "no positive": ([0, 0, np.nan, 0], {"ap", "ap_gain", "roc_auc", "f1"}),
    "no negative": ([1, 1, np.nan, 1], {"ap", "ap_gain", "roc_auc"}),
    "one present": ([1], {"ap", "ap_gain", "roc_auc"}),
    "one absent": ([0], {"ap", "ap_gain", "roc_auc", "f1"}),
    "none": ([], set(NAMES)),
    "both": ([1, 0, np.nan, np.nan], set()),
}


@pytest.mark.parametrize(("labels", "undefined"), LABELS.values(), ids=LABELS.keys())
def test_where_an_attribute_is_undefined(labels: list[float], undefined: set[str]) -> None:
    targets = np.array(labels, dtype=float).reshape(-1, 1)
    scores, losses = np.linspace(0.1, 0.9, len(labels)).reshape(-1, 1), np.where(np.isnan(targets), np.nan, 0.5)
    weights = np.ones((3, len(labels)), np.uint8)
    found = resampling.bootstrap(targets, scores, np.ones_like(scores), losses, 2 * losses, weights)
    for name in NAMES:
        assert found[name].shape == (3, 1)
        assert found[f"{name}_macro"].shape == (3,)
        assert np.isnan(found[name]).all() == np.isnan(found[f"{name}_macro"]).all() == (name in undefined)


# Permutations.


def slow_permutation_p(truth: np.ndarray, score: np.ndarray, groups: np.ndarray) -> float:
    """Share of all exchanges of whole groups of one size that reach the AP of the true labels."""
    members = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    observed, reached, total = sk.average_precision_score(truth, score), 0, 0
    for order in itertools.permutations(range(len(members))):
        if all(len(members[to]) == len(members[source]) for to, source in enumerate(order)):
            moved = truth.copy()
            for to, source in enumerate(order):
                moved[members[to]] = truth[members[source]]
            total += 1
            reached += sk.average_precision_score(moved, score) >= observed - 1e-12
    return reached / total


@pytest.mark.parametrize("groups", [[0, 1, 2, 3, 4, 5], [3, 0, 3, 0, 1, 1], [5, 5, 0, 1, 2, 2]], ids=["single", "pairs", "mixed"])
@pytest.mark.parametrize("seed", range(3))
def test_permutations_reach_what_all_exchanges_reach(seed: int, groups: list[int]) -> None:
    chance = np.random.default_rng(seed)
    truth, score = chance.permutation([1.0, 1, 0, 0, 0, 1]), np.round(chance.random(6), 1)
    found = resampling.permutation_p(truth, score, np.array(groups), 8000, seed)
    # Four standard errors of a share of 8,000 draws are at most 0.022.
    assert found == pytest.approx(slow_permutation_p(truth, score, np.array(groups)), abs=0.023)


@pytest.mark.parametrize("block", [1, 100, 2**18])
def test_permutations_in_blocks_of_any_size(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resampling, "BLOCK", block)
    chance = np.random.default_rng(0)
    truth, score = (chance.random(30) < 0.3).astype(float), chance.random(30)
    found = [resampling.permutation_p(truth, score, np.arange(30), 2000, seed) for seed in (1, 1, 2)]
    assert found[0] == found[1] != found[2]
    assert found[0] == pytest.approx(found[2], abs=0.06)


@pytest.mark.parametrize("copies", [1, 3])
def test_p_is_uniform_without_signal(copies: int) -> None:
    found = []
    for seed in range(200):
        chance = np.random.default_rng(seed)
        truth = np.repeat((chance.permutation(20) < 6).astype(float), copies)
        score = np.repeat(chance.random(20), copies) + 1e-3 * chance.random(20 * copies)
        found.append(resampling.permutation_p(truth, score, np.arange(20 * copies) // copies, 199, seed))
    # The mean of 200 uniform values has standard error 0.02, the share below 0.05 has 0.0154: three and two of them.
    assert np.mean(found) == pytest.approx(0.5, abs=0.061)
    assert np.mean(np.array(found) <= 0.05) < 0.081


def test_duplicates_taken_for_independent_make_the_test_too_eager() -> None:
    """The reason for the groups: the same data as above, each image on its own."""
    found = []
    for seed in range(100):
        chance = np.random.default_rng(seed)
        truth = np.repeat((chance.permutation(20) < 6).astype(float), 3)
        found.append(resampling.permutation_p(truth, np.repeat(chance.random(20), 3), np.arange(60), 199, seed))
    assert np.mean(np.array(found) <= 0.05) > 0.12


def test_p_is_tiny_under_signal() -> None:
    truth = np.repeat([1.0, 0.0], [10, 40])
    score = truth + np.random.default_rng(0).normal(0, 0.3, 50)
    assert resampling.permutation_p(truth, score, np.arange(50) // 2, 1999, 0) == 1 / 2000


def test_p_counts_equal_values_as_reached() -> None:
    truth = np.array([1.0, 0, 1, 0])
    assert resampling.permutation_p(truth, np.full(4, 0.5), np.arange(4), 50, 0) == 1


@pytest.mark.parametrize("groups", [[0, 0, 0, 0], [0, 0, 0, 1]], ids=["one group", "no two of one size"])
def test_p_is_one_where_nothing_can_be_exchanged(groups: list[int]) -> None:
    truth, score = np.array([1.0, 0, 1, 0]), np.array([0.9, 0.2, 0.8, 0.1])
    assert resampling.permutation_p(truth, score, np.array(groups), 20, 0) == 1


@pytest.mark.parametrize("labels", [[], [1.0], [0.0], [1.0, 1.0], [0.0, 0.0]])
def test_p_of_one_class_is_undefined(labels: list[float]) -> None:
    n = len(labels)
    assert math.isnan(resampling.permutation_p(np.array(labels), np.linspace(0, 1, n), np.arange(n), 10, 0))


# Several tests.


def test_holm_by_hand() -> None:
    """Sorted 0.01, 0.02, 0.03, 0.04 times 4, 3, 2, 1 is 0.04, 0.06, 0.06, 0.04; the last may not be below 0.06."""
    np.testing.assert_allclose(resampling.holm(np.array([0.04, 0.01, 0.03, 0.02])), [0.06, 0.04, 0.06, 0.06])
    np.testing.assert_allclose(resampling.holm(np.array([0.5, np.nan, 0.6, 0.01])), [1, np.nan, 1, 0.03])
    assert np.isnan(resampling.holm(np.array([np.nan, np.nan]))).all()
    assert resampling.holm(np.array([])).shape == (0,)
    np.testing.assert_array_equal(resampling.holm(np.array([0.2])), [0.2])


@pytest.mark.parametrize("seed", range(5))
def test_holm_rejects_what_the_procedure_rejects(seed: int) -> None:
    """Step by step: compare the smallest p with level / (tests that are left), and stop at the first that is above."""
    chance = np.random.default_rng(seed)
    p = np.round(chance.random(8) ** 3, 3)
    adjusted = resampling.holm(p)
    for level in (0.01, 0.05, 0.2, 0.5):
        rejected: set[int] = set()
        for step, index in enumerate(np.argsort(p, kind="stable")):
            if p[index] * (8 - step) > level:
                break
            rejected.add(int(index))
        assert set(np.flatnonzero(adjusted <= level)) == rejected
