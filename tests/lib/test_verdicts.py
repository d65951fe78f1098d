"""Words at their edges, the power of the test against simulated tests, and how many labels would do against a slow search."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from stages.lib import verdicts

MANY = 100  # of each class: the test would see a clear signal

GIVEN = {  # p, lower end of ROC-AUC, positives, negatives -> word
    "sure": (0.001, 0.6, MANY, MANY, verdicts.LEARNED),
    "just sure": (0.01, 0.501, MANY, MANY, verdicts.LEARNED),
    "not quite sure": (0.0101, 0.6, MANY, MANY, verdicts.WEAK),
    "sure by AP, not by AUC": (0.001, 0.5, MANY, MANY, verdicts.WEAK),
    "sure by AP, AUC without interval": (0.001, math.nan, MANY, MANY, verdicts.WEAK),
    "just likely": (0.05, 0.6, MANY, MANY, verdicts.WEAK),
    "not quite likely": (0.0501, 0.6, MANY, MANY, verdicts.NOTHING),
    "certainly not": (1.0, 0.3, MANY, MANY, verdicts.NOTHING),
    "five of each, sure": (0.001, 0.6, 5, 5, verdicts.LEARNED),
    "five of each, silent": (0.5, 0.4, 5, 5, verdicts.TOO_FEW),
    "four positives": (0.001, 0.6, 4, MANY, verdicts.TOO_FEW),
    "four negatives": (0.001, 0.6, MANY, 4, verdicts.TOO_FEW),
    "no p": (math.nan, 0.6, MANY, MANY, verdicts.TOO_FEW),
    "one class": (math.nan, math.nan, MANY, 0, verdicts.TOO_FEW),
    "no label": (math.nan, math.nan, 0, 0, verdicts.TOO_FEW),
}


@pytest.mark.parametrize(("p", "auc_low", "positives", "negatives", "word"), GIVEN.values(), ids=GIVEN.keys())
def test_word_at_its_edges(p: float, auc_low: float, positives: int, negatives: int, word: str) -> None:
    assert verdicts.verdict(p, auc_low, positives, negatives, 8) == word


def test_silence_is_an_answer_only_where_the_test_would_have_seen_a_clear_signal() -> None:
    words = [verdicts.verdict(0.5, 0.4, n, n, 8) for n in range(5, 40)]
    powers = [verdicts.power_of(n, n, 8) for n in range(5, 40)]
    assert words == [verdicts.NOTHING if power >= 0.8 else verdicts.TOO_FEW for power in powers]
    assert set(words) == {verdicts.NOTHING, verdicts.TOO_FEW}
    # The same rows answer one question and not one of many: each is asked more strictly then.
    assert verdicts.verdict(0.5, 0.4, 10, 10, 1) == verdicts.NOTHING
    assert verdicts.verdict(0.5, 0.4, 10, 10, 8) == verdicts.TOO_FEW


# Power.


def simulated_power(positives: int, negatives: int, n_attributes: int, auc: float, scores: str) -> float:
    """Share of 3000 drawn samples in which the one-sided Mann-Whitney test is below 0.05 / n_attributes."""
    chance = np.random.default_rng(positives + 1000 * negatives)
    if scores == "exponential":  # of rates 1 and 1 / m a positive is higher with probability m / (1 + m)
        of_positives = chance.exponential(auc / (1 - auc), (3000, positives))
        of_negatives = chance.exponential(1, (3000, negatives))
    else:  # the difference of two normal scores has standard deviation sqrt(2)
        of_positives = chance.normal(math.sqrt(2) * stats.norm.ppf(auc), 1, (3000, positives))
        of_negatives = chance.normal(0, 1, (3000, negatives))
    found = stats.mannwhitneyu(of_positives, of_negatives, alternative="greater", axis=1, method="asymptotic")
    return float((found.pvalue <= 0.05 / n_attributes).mean())


# positives, negatives, attributes, AUC: powers from 0.59 to 0.96
CASES = [(10, 10, 8, 0.85), (8, 30, 4, 0.85), (30, 8, 8, 0.85), (12, 100, 8, 0.85), (20, 20, 8, 0.75), (40, 60, 3, 0.65)]


@pytest.mark.parametrize(("positives", "negatives", "n_attributes", "auc"), CASES)
def test_power_is_that_of_simulated_tests(positives: int, negatives: int, n_attributes: int, auc: float) -> None:
    found = verdicts.power_of(positives, negatives, n_attributes, auc)
    # Four standard errors of a share of 3000 are at most 0.037; normal where the statistic has few steps: about 0.02.
    assert found == pytest.approx(simulated_power(positives, negatives, n_attributes, auc, "exponential"), abs=0.06)
    # Another family of scores with this AUC has another variance, which moves the power by a few per cent.
    assert found == pytest.approx(simulated_power(positives, negatives, n_attributes, auc, "normal"), abs=0.09)


def test_power_without_signal_is_the_level_of_the_test() -> None:
    """At AUC 0.5 both variances are the same: Hanley and McNeil's terms are 1/3 there."""
    assert verdicts.power_of(30, 50, 1, 0.5) == pytest.approx(0.05)
    assert verdicts.power_of(30, 50, 10, 0.5) == pytest.approx(0.005)


def test_power_grows_with_examples_and_signal_and_falls_with_attributes() -> None:
    for other in (5, 20, 50):
        by_positives = [verdicts.power_of(n, other, 8) for n in range(5, 100, 5)]
        by_negatives = [verdicts.power_of(other, n, 8) for n in range(5, 100, 5)]
        assert (np.diff(by_positives) > 0).all()
        assert (np.diff(by_negatives) > 0).all()
    assert (np.diff([verdicts.power_of(20, 20, 8, auc) for auc in np.linspace(0.5, 0.95, 10)]) > 0).all()
    assert (np.diff([verdicts.power_of(20, 20, n) for n in range(1, 50)]) < 0).all()


@pytest.mark.parametrize(("positives", "negatives"), [(0, 0), (0, 50), (50, 0)])
def test_no_power_without_both_classes(positives: int, negatives: int) -> None:
    assert verdicts.power_of(positives, negatives, 8) == 0


def test_power_is_finite_for_one_example_and_for_no_tested_attribute() -> None:
    assert 0 < verdicts.power_of(1, 1, 1) < 1
    assert verdicts.power_of(20, 20, 0) == verdicts.power_of(20, 20, 1)


# Rows that would do.


def would_do(rows: int, positives: int, negatives: int, n_attributes: int) -> bool:
    """Are so many rows in the same mix enough for an answer, whatever p turns out to be?"""
    share = positives / (positives + negatives)
    of_each = round(rows * share), round(rows * (1 - share))
    return verdicts.verdict(0.5, 0.4, *of_each, n_attributes) == verdicts.NOTHING


MIXES = [(1, 1, 1), (5, 5, 8), (10, 90, 8), (90, 10, 8), (3, 4, 40), (1, 300, 8), (300, 1, 8), (7, 2, 1)]


@pytest.mark.parametrize(("positives", "negatives", "n_attributes"), MIXES)
def test_rows_needed_are_enough_and_hardly_more_than_enough(positives: int, negatives: int, n_attributes: int) -> None:
    found = verdicts.rows_needed(positives, negatives, n_attributes)
    assert would_do(found, positives, negatives, n_attributes)
    fewest = 1
    while not would_do(fewest, positives, negatives, n_attributes):
        fewest += 1
    # The search goes on in steps of 2 %, and starts where there are five whole examples of the rarer class: the slow
    # one rounds 4.6 up to five.
    five = math.ceil(5 * (positives + negatives) / min(positives, negatives))
    assert fewest <= found <= max(five, 1.02 * fewest + 1)


def test_a_class_never_seen_counts_as_once() -> None:
    assert verdicts.rows_needed(0, 50, 3) == verdicts.rows_needed(1, 50, 3) >= 5 * 51
    assert verdicts.rows_needed(50, 0, 3) == verdicts.rows_needed(50, 1, 3)
    assert verdicts.rows_needed(0, 0, 3) == verdicts.rows_needed(1, 1, 3)


# In words.


@pytest.mark.parametrize("word", [verdicts.LEARNED, verdicts.WEAK, verdicts.NOTHING])
def test_other_words_explain_themselves(word: str) -> None:
    assert verdicts.explained(word, 3, 100, 8) == word


def test_too_few_says_how_many_there_are_and_would_do() -> None:
    found = verdicts.explained(verdicts.TOO_FEW, 3, 40, 8)
    needed = verdicts.rows_needed(3, 40, 8)
    start = "too few examples to tell: 3 present and 40 absent among the scored images"
    assert found == f"{start}; about {needed} labels among them would do"
    assert verdicts.explained(verdicts.TOO_FEW, 0, 40, 8).endswith("among the scored images; it takes 5 of each at least")
    assert needed > 43


def test_too_few_never_asks_for_fewer_than_there_are() -> None:
    """3000 labels have power for any mix, but of two classes."""
    assert verdicts.rows_needed(1500, 1500, 8) < 3000
    assert "about 3001 labels" in verdicts.explained(verdicts.TOO_FEW, 1500, 1500, 8)


def test_counts_of_each_word_with_those_that_nobody_got() -> None:
    words = np.array([verdicts.WEAK, verdicts.LEARNED, verdicts.WEAK], dtype=object)
    expected = {verdicts.LEARNED: 1, verdicts.WEAK: 2, verdicts.NOTHING: 0, verdicts.TOO_FEW: 0}
    assert verdicts.counts(words) == expected
    assert set(verdicts.counts(np.array([], dtype=object)).values()) == {0}
