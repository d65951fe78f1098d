"""Scores with intervals and verdicts: against slow loops, made signals and noise, and where nothing is known."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sk

from stages.lib import evidence, metrics, resampling, verdicts
from stages.lib.evidence import Outcome
from tests.outcomes import outcome_of

NAMES = ["a", "b", "c"]
SCORES = ("ap", "ap_gain", "roc_auc", "f1", "skill")


@pytest.fixture(autouse=True)
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Intervals of 400 resamples are a little rougher, and take a fifth of the time; tests of p set their own number."""
    monkeypatch.setattr(evidence, "RESAMPLES", 400)


def drawn(seed: int, n_images: int = 80, signal: float = 1.0) -> Outcome:
    """Three attributes with 20, 50 and 70 % positives, a fifth unknown, scores with ties and as much signal as said."""
    chance = np.random.default_rng(seed)
    targets = (chance.random((n_images, 3)) < [0.2, 0.5, 0.7]).astype(float)
    log_odds = np.round(signal * (2 * targets - 1) + chance.normal(0, 1, targets.shape), 1)
    targets[chance.random(targets.shape) < 0.2] = np.nan
    return outcome_of(targets, log_odds)


def slow_skill(found: Outcome, columns: list[int]) -> float:
    """1 - (log loss) / (log loss of the constant), cell by cell."""
    own = constant = 0.0
    for row in range(len(found.targets)):
        for column in columns:
            truth = found.targets[row, column]
            if not math.isnan(truth):
                p, q = (1 / (1 + math.exp(-x)) for x in (found.log_odds[row, column], found.constant[row, column]))
                own -= math.log(p if truth else 1 - p)
                constant -= math.log(q if truth else 1 - q)
    return 1 - own / constant


# Points and intervals.


@pytest.mark.parametrize("seed", range(3))
def test_points_are_the_scores_of_the_known_rows(seed: int) -> None:
    found = drawn(seed)
    table, macro = evidence.assess(NAMES, found, seed)
    assert list(table["attribute"]) == NAMES
    # Sums in another order: the last digits differ.
    np.testing.assert_allclose(table["ap"], metrics.average_precision(found.targets, found.log_odds), rtol=1e-10)
    np.testing.assert_allclose(table["roc_auc"], metrics.roc_auc(found.targets, found.log_odds), rtol=1e-10)
    for column in range(3):
        known = ~np.isnan(found.targets[:, column])
        truth, decided = found.targets[known, column], found.decided[known, column]
        row = table.loc[column]
        assert (row["positives"], row["negatives"]) == (truth.sum(), (1 - truth).sum())
        assert row["ap_gain"] == pytest.approx(row["ap"] - truth.mean(), rel=1e-10)
        assert row["f1"] == pytest.approx(sk.f1_score(truth, decided), rel=1e-10)
        assert row["skill"] == pytest.approx(slow_skill(found, [column]), rel=1e-10)
    for name in ("ap", "ap_gain", "roc_auc", "f1"):
        assert macro[name] == pytest.approx(metrics.macro(table[name].to_numpy()), rel=1e-10)
    assert macro["skill"] == pytest.approx(slow_skill(found, [0, 1, 2]), rel=1e-10)


def test_macro_is_over_defined_attributes() -> None:
    found = drawn(0)
    found.targets[:, 1] = np.nan
    table, macro = evidence.assess(NAMES, found, 0)
    assert math.isnan(table["ap"][1])
    assert macro["ap"] == pytest.approx((table["ap"][0] + table["ap"][2]) / 2)
    assert macro["skill"] == pytest.approx(slow_skill(found, [0, 2]), rel=1e-10)
    assert macro["ap_low"] < macro["ap"] < macro["ap_high"]


@pytest.mark.parametrize("seed", range(3))
def test_intervals_hold_the_point(seed: int) -> None:
    table, macro = evidence.assess(NAMES, drawn(seed), seed)
    for name in SCORES:
        assert (table[f"{name}_low"] < table[name]).all()
        assert (table[name] < table[f"{name}_high"]).all()
        assert macro[f"{name}_low"] < macro[name] < macro[f"{name}_high"]
        # What one attribute has too much, another has too little.
        widths = table[f"{name}_high"] - table[f"{name}_low"]
        assert macro[f"{name}_high"] - macro[f"{name}_low"] < widths.max()


def test_intervals_are_narrower_with_more_images() -> None:
    few, many = (evidence.assess(NAMES, drawn(0, n_images=n), 0)[0] for n in (50, 800))
    for name in SCORES:
        assert (many[f"{name}_high"] - many[f"{name}_low"] < 0.6 * (few[f"{name}_high"] - few[f"{name}_low"])).all()


def test_near_duplicates_widen_the_intervals() -> None:
    """Four copies of each image look like four times the evidence, and half the width, unless they are one group."""
    single = drawn(0, n_images=60)
    copies = [np.repeat(values, 4, axis=0) for values in (single.targets, single.log_odds)]
    apart, one_group = (evidence.assess(NAMES, outcome_of(*copies, groups), 0)[0] for groups in (None, np.arange(240) // 4))
    alone, _ = evidence.assess(NAMES, single, 0)
    for name in SCORES:
        widths = [table[f"{name}_high"] - table[f"{name}_low"] for table in (apart, one_group, alone)]
        assert (widths[0] < 0.75 * widths[1]).all()
        # The same draws of groups are the same draws of images.
        np.testing.assert_allclose(widths[1], widths[2], rtol=1e-9)


def test_intervals_end_at_the_lowest_possible_score() -> None:
    """Of few positives one is on top and the others below all: the scores are low, and their resamples vary much."""
    targets = np.zeros((12, 1))
    targets[[0, 8, 9, 10, 11]] = 1
    table, macro = evidence.assess(["a"], outcome_of(targets, -np.arange(12.0)[:, None]), 0)
    for name in ("roc_auc",):
        assert table[f"{name}_low"][0] == macro[f"{name}_low"] == 0
    assert table["skill_low"][0] < -1


def test_what_unknown_cells_hold_does_not_count() -> None:
    found = drawn(1)
    unknown = np.isnan(found.targets)
    expected, expected_macro = evidence.assess(NAMES, found, 0)
    for value in (-50.0, 0.0, 50.0):
        other = dataclasses.replace(
            found,
            log_odds=np.where(unknown, value, found.log_odds),
            decided=np.where(unknown, value > 0, found.decided),
            constant=np.where(unknown, value, found.constant),
        )
        table, macro = evidence.assess(NAMES, other, 0)
        pd.testing.assert_frame_equal(table, expected, check_exact=True)
        assert macro == expected_macro


def test_same_seed_same_table() -> None:
    first, again, other = (evidence.assess(NAMES, drawn(0, signal=0.3), seed)[0] for seed in (3, 3, 4))
    pd.testing.assert_frame_equal(first, again, check_exact=True)
    pd.testing.assert_series_equal(first["ap"], other["ap"], check_exact=True)
    assert (first["ap_low"] != other["ap_low"]).all()
    assert (first["p"] != other["p"]).any()


# Tests and verdicts.


def test_a_signal_is_learned() -> None:
    table, _ = evidence.assess(NAMES, drawn(0, n_images=120, signal=1.5), 0)
    assert (table["verdict"] == verdicts.LEARNED).all()
    assert (table["p"] <= 0.01).all()


@pytest.mark.parametrize("seed", range(6))
def test_shuffled_labels_are_not_learned(seed: int) -> None:
    found = drawn(seed, n_images=120, signal=1.5)
    shuffled = dataclasses.replace(found, targets=np.random.default_rng(seed).permuted(found.targets, axis=0))
    table, macro = evidence.assess(NAMES, shuffled, seed)
    # By chance a sure word comes about once in a hundred tables, and a weak one once in twenty.
    assert not (table["verdict"] == verdicts.LEARNED).any()
    assert (table["verdict"] == verdicts.NOTHING).sum() >= 2
    assert macro["skill"] < 0


@pytest.mark.parametrize("label", [0.0, 1.0, np.nan])
def test_one_class_is_too_few(label: float) -> None:
    found = drawn(0, n_images=120, signal=1.5)
    found.targets[:, 1] = np.where(np.isnan(found.targets[:, 1]), np.nan, label)
    table, _ = evidence.assess(NAMES, found, 0)
    assert table["verdict"][1] == verdicts.TOO_FEW
    ranked = [f"{name}{end}" for name in ("ap", "ap_gain", "roc_auc") for end in ("", "_low", "_high")]
    assert table.loc[1, ["p", *ranked]].isna().all()
    # F1 has a meaning with positives only.
    assert math.isnan(table["f1"][1]) == (label != 1)
    assert math.isnan(table["skill"][1])
    assert (table["verdict"][[0, 2]] == verdicts.LEARNED).all()


def test_p_is_that_of_shuffling_adjusted_for_the_attributes_that_can_be_tested() -> None:
    found = drawn(5, n_images=30, signal=0.35)
    found.targets[:, 1] = np.where(np.isnan(found.targets[:, 1]), np.nan, 1)
    chance, plain = np.random.default_rng(0), []
    for column in (0, 2):
        known = ~np.isnan(found.targets[:, column])
        truth, score = found.targets[known, column], found.log_odds[known, column]
        observed = sk.average_precision_score(truth, score) - 1e-12
        shuffled = [sk.average_precision_score(chance.permutation(truth), score) for _ in range(1000)]
        plain.append(float(np.mean([value >= observed for value in shuffled])))
    smaller = min(2 * min(plain), 1)
    expected = [smaller if p == min(plain) else min(1, max(p, smaller)) for p in plain]
    p = evidence.p_values(found, 0)
    assert math.isnan(p[1])
    # A share of 1000 has a standard error of at most 0.016, one of 2000 of 0.011: four of both, doubled.
    np.testing.assert_allclose(p[[0, 2]], expected, atol=0.16)
    assert 0.02 < min(expected) < max(expected) < 1  # neither end, where any rule would do


def test_p_is_adjusted_by_holm(monkeypatch: pytest.MonkeyPatch) -> None:
    """0.01, 0.02 and 0.2 times 3, 2 and 1."""
    plain = iter([0.02, 0.2, 0.01])
    monkeypatch.setattr(resampling, "permutation_p", lambda *_: next(plain))
    np.testing.assert_allclose(evidence.p_values(drawn(0), 0), [0.04, 0.2, 0.03])


def test_forty_attributes_can_all_be_learned() -> None:
    """With 2000 permutations the smallest p of 40 would be 40 / 2001, which is never sure."""
    chance = np.random.default_rng(0)
    targets = np.tile(np.repeat([1.0, 0.0], 12), (40, 1)).T
    log_odds = 4 * (2 * targets - 1) + chance.normal(0, 1, targets.shape)
    p = evidence.p_values(outcome_of(targets, log_odds), 0)
    assert p.shape == (40,)
    assert (p <= verdicts.SURE).all()
    assert (p > 0).all()


def test_near_duplicates_are_no_evidence() -> None:
    """Ten images, eight copies of each: labels and scores that agree a little, many times over."""
    truth, score = np.array([1.0, 1, 1, 1, 1, 0, 0, 0, 0, 0]), np.array([9.0, 8, 4, 3, 6, 7, 5, 2, 1, 0])
    copies = [np.repeat(values, 8)[:, None] for values in (truth, score - 5)]
    apart, together = (evidence.p_values(outcome_of(*copies, groups), 0) for groups in (None, np.arange(80) // 8))
    assert apart[0] < 0.01
    assert together[0] > 0.05
    table, _ = evidence.assess(["a"], outcome_of(*copies, np.arange(80) // 8), 0)
    # Five examples of each class, not forty: a test of so few would miss a clear signal too.
    assert table["verdict"][0] == verdicts.TOO_FEW


# Where nothing is known.


@pytest.mark.parametrize("label", [0.0, 1.0, np.nan])
def test_one_image(label: float) -> None:
    table, macro = evidence.assess(["a", "b"], outcome_of(np.array([[label, np.nan]]), np.array([[2.0, 1.0]])), 0)
    assert (table["verdict"] == verdicts.TOO_FEW).all()
    assert table[["ap", "ap_low", "ap_high", "roc_auc", "p"]].isna().all(axis=None)
    assert math.isnan(macro["ap"])
    assert math.isnan(macro["ap_low"])
    assert math.isnan(macro["skill"]) == math.isnan(label)


def test_no_known_label() -> None:
    table, macro = evidence.assess(NAMES, outcome_of(np.full((9, 3), np.nan), np.zeros((9, 3))), 0)
    assert (table["verdict"] == verdicts.TOO_FEW).all()
    assert (table[["positives", "negatives"]] == 0).all(axis=None)
    assert table.drop(columns=["attribute", "verdict", "positives", "negatives"]).isna().all(axis=None)
    assert all(math.isnan(value) for value in macro.values())
    assert set(macro) == {f"{name}{end}" for name in SCORES for end in ("", "_low", "_high")}
