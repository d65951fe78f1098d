"""Scores over known labels against slow loops, and where they are undefined."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sk

from stages.lib import loss, metrics

NAMES = ["a", "b", "c"]


def drawn(seed: int, n_images: int = 40, ties: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Targets with NaN and scores, with ties."""
    chance = np.random.default_rng(seed)
    targets = (chance.random((n_images, 3)) < [0.1, 0.5, 0.9]).astype(float)
    targets[:3, :] = [[1, 1, 1], [0, 0, 0], [1, 1, 1]]
    targets[3:][chance.random((n_images - 3, 3)) < 0.3] = np.nan
    scores = np.round(chance.random((n_images, 3)), 1) if ties else chance.random((n_images, 3))
    return targets, scores


def slow_average_precision(truth: list[float], score: list[float]) -> float:
    """Sum over thresholds, from high to low, of (recall gained) * precision."""
    total, recall_before, positives = 0.0, 0.0, sum(truth)
    for threshold in sorted(set(score), reverse=True):
        called = [t for t, s in zip(truth, score, strict=True) if s >= threshold]
        recall = sum(called) / positives
        total += (recall - recall_before) * sum(called) / len(called)
        recall_before = recall
    return total


def slow_roc_auc(truth: list[float], score: list[float]) -> float:
    """Share of pairs of a positive and a negative in which the positive scores higher; a tie counts half."""
    pairs = [(s, o) for (t, s), (u, o) in itertools.product(zip(truth, score, strict=True), repeat=2) if t == 1 and u == 0]
    return sum(1.0 if s > o else 0.5 if s == o else 0.0 for s, o in pairs) / len(pairs)


def known_column(targets: np.ndarray, other: np.ndarray, column: int) -> tuple[list[float], list[float]]:
    pairs = [(t, o) for t, o in zip(targets[:, column], other[:, column], strict=True) if not math.isnan(t)]
    return [t for t, _ in pairs], [o for _, o in pairs]


def table_of(targets: np.ndarray, scores: np.ndarray, decided: np.ndarray) -> pd.DataFrame:
    losses = loss.cells(scores, targets, np.ones(targets.shape[1]))
    names = NAMES[: targets.shape[1]]
    return metrics.attribute_table(names, targets, scores, decided, losses, 2 * losses)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_average_precision_and_roc_auc_of_known_labels(seed: int, ties: bool) -> None:
    targets, scores = drawn(seed, ties=ties)
    ap, auc = metrics.average_precision(targets, scores), metrics.roc_auc(targets, scores)
    for column in range(3):
        truth, score = known_column(targets, scores, column)
        assert ap[column] == pytest.approx(slow_average_precision(truth, score), rel=1e-12)
        assert auc[column] == pytest.approx(slow_roc_auc(truth, score), rel=1e-12)


def test_scores_of_unknown_labels_do_not_count() -> None:
    targets, scores = drawn(0)
    other = np.where(np.isnan(targets), 1 - scores, scores)
    np.testing.assert_array_equal(metrics.average_precision(targets, scores), metrics.average_precision(targets, other))
    np.testing.assert_array_equal(metrics.roc_auc(targets, scores), metrics.roc_auc(targets, other))
    decided, other_decided = (scores > 0.5).astype(float), (other > 0.5).astype(float)
    assert metrics.confusion(NAMES, targets, decided).equals(metrics.confusion(NAMES, targets, other_decided))
    for one, two in zip(metrics.curves(NAMES, targets, scores), metrics.curves(NAMES, targets, other), strict=True):
        assert one.equals(two)


@pytest.mark.parametrize("seed", range(4))
def test_precision_recall_and_f1_of_known_labels(seed: int) -> None:
    targets, scores = drawn(seed)
    decided = (scores >= 0.6).astype(float)
    table = table_of(targets, scores, decided)
    for column in range(3):
        truth, called = known_column(targets, decided, column)
        assert table["precision"][column] == pytest.approx(sk.precision_score(truth, called))
        assert table["recall"][column] == pytest.approx(sk.recall_score(truth, called))
        assert table["f1"][column] == pytest.approx(sk.f1_score(truth, called))


def test_supports_losses_and_constants() -> None:
    targets, scores = drawn(1)
    table = table_of(targets, scores, (scores >= 0.6).astype(float))
    losses = loss.cells(scores, targets, np.ones(3))
    assert list(table["attribute"]) == NAMES
    for column in range(3):
        truth, _ = known_column(targets, scores, column)
        rate = sum(truth) / len(truth)
        row = table.iloc[column]
        assert (row["known"], row["positives"]) == (len(truth), sum(truth))
        assert row["loss"] == pytest.approx(np.nanmean(losses[:, column]))
        assert row["loss_constant"] == pytest.approx(2 * np.nanmean(losses[:, column]))
        # A constant, scored as any other model is.
        constant = [0.3] * len(truth)
        assert row["ap_constant"] == pytest.approx(sk.average_precision_score(truth, constant))
        assert row["roc_auc_constant"] == sk.roc_auc_score(truth, constant) == 0.5
        everything_present, nothing_present = (sk.f1_score(truth, [call] * len(truth), zero_division=0) for call in (1, 0))
        assert row["f1_constant"] == pytest.approx(max(everything_present, nothing_present))
        assert row["f1_constant"] == pytest.approx(2 * rate / (1 + rate))


DEFINED = {  # targets of one attribute -> is AP defined, is ROC-AUC
    "all unknown": ([np.nan] * 4, False, False),
    "no positive": ([0, 0, np.nan, 0], False, False),
    "no negative": ([1, 1, np.nan, 1], False, False),
    "one present": ([1], False, False),
    "one absent": ([0], False, False),
    "one unknown": ([np.nan], False, False),
    "none": ([], False, False),
    "both": ([1, 0, np.nan, np.nan], True, True),
}


@pytest.mark.parametrize(("labels", "ap", "auc"), DEFINED.values(), ids=DEFINED.keys())
def test_where_scores_are_undefined(labels: list[float], ap: bool, auc: bool) -> None:
    targets = np.array(labels, dtype=float).reshape(-1, 1)
    scores = np.linspace(0.1, 0.9, len(labels)).reshape(-1, 1)
    decided = np.ones_like(targets)
    assert np.isnan(metrics.average_precision(targets, scores)[0]) == (not ap)
    assert np.isnan(metrics.roc_auc(targets, scores)[0]) == (not auc)
    row = table_of(targets, scores, decided).iloc[0]
    assert np.isnan(row["recall"]) == np.isnan(row["f1"]) == np.isnan(row["f1_constant"]) == (1 not in labels)
    assert np.isnan(row["roc_auc_constant"]) == (not auc)
    known = sum(not math.isnan(label) for label in labels)
    assert row["known"] == known
    for name in ("loss", "loss_constant", "precision", "ap_constant"):
        assert np.isnan(row[name]) == (known == 0)
    assert len(metrics.confusion(["a"], targets, decided)) == 4
    pr, roc = metrics.curves(["a"], targets, scores)
    assert (len(pr) > 0, len(roc) > 0) == (1 in labels, auc)
    assert "attribute" in pr
    assert "attribute" in roc


def test_precision_is_undefined_where_nothing_is_called_present() -> None:
    row = table_of(np.array([[1.0], [0.0]]), np.array([[0.3], [0.2]]), np.zeros((2, 1))).iloc[0]
    assert np.isnan(row["precision"])
    assert (row["recall"], row["f1"]) == (0, 0)


def test_macro_leaves_undefined_scores_out() -> None:
    assert metrics.macro(np.array([0.2, np.nan, 0.6])) == pytest.approx(0.4)
    assert math.isnan(metrics.macro(np.array([np.nan, np.nan])))
    assert math.isnan(metrics.macro(np.array([])))


def test_mean_loss_is_one_sum_over_one_count() -> None:
    """Attributes and images differ in how many labels are known: a mean of means would be another number."""
    chance = np.random.default_rng(3)
    targets = chance.integers(0, 2, (30, 3)).astype(float)
    targets[chance.random((30, 3)) < [0.05, 0.5, 0.95]] = np.nan
    logits, weight = chance.normal(0, 2, (30, 3)), np.array([0.3, 1.0, 12.0])
    total, known = 0.0, 0
    for row, column in itertools.product(range(30), range(3)):
        if not math.isnan(targets[row, column]):
            probability = 1 / (1 + math.exp(-logits[row, column]))
            present = targets[row, column] == 1
            total -= weight[column] * math.log(probability) if present else math.log(1 - probability)
            known += 1
    found = metrics.mean_loss(logits, targets, weight)
    assert found == pytest.approx(total / known, rel=1e-12)
    by_column = np.nanmean(loss.cells(logits, targets, weight), axis=0).mean()
    assert found != pytest.approx(by_column, rel=0.01)


def test_mean_loss_without_a_known_label_is_undefined() -> None:
    assert math.isnan(metrics.mean_loss(np.zeros((2, 1)), np.full((2, 1), np.nan), np.ones(1)))


def test_curves_run_over_every_threshold() -> None:
    targets, scores = drawn(2, n_images=15)
    pr, roc = metrics.curves(NAMES, targets, scores)
    for column, name in enumerate(NAMES):
        truth, score = (np.array(values) for values in known_column(targets, scores, column))
        points, rates = {(0.0, 1.0)}, {(0.0, 0.0)}
        for threshold in score:
            called = score >= threshold
            points.add((truth[called].sum() / truth.sum(), truth[called].mean()))
            rates.add(((1 - truth)[called].sum() / (1 - truth).sum(), truth[called].sum() / truth.sum()))
        own = pr[pr["attribute"] == name]
        rounded = {(round(x, 9), round(y, 9)) for x, y in points}
        assert {(round(x, 9), round(y, 9)) for x, y in zip(own["recall"], own["precision"], strict=True)} == rounded
        assert (np.diff(own["recall"]) >= 0).all()
        assert list(own["step"]) == list(range(len(own)))
        own = roc[roc["attribute"] == name]
        found = list(zip(own["false_positive_rate"], own["true_positive_rate"], strict=True))
        assert {(round(x, 9), round(y, 9)) for x, y in found} <= {(round(x, 9), round(y, 9)) for x, y in rates}
        assert (found[0], found[-1]) == ((0, 0), (1, 1))
        area = sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in itertools.pairwise(found))
        assert area == pytest.approx(slow_roc_auc(list(truth), list(score)))


def test_confusion_counts_known_labels() -> None:
    targets, scores = drawn(3)
    decided = (scores >= 0.5).astype(float)
    table = metrics.confusion(NAMES, targets, decided)
    assert len(table) == 12
    for row in table.itertuples():
        truth, called = known_column(targets, decided, NAMES.index(row.attribute))
        wanted = (row.actual == "present", row.decided == "present")
        pairs = list(zip(truth, called, strict=True))
        assert row.images == sum((t == 1, c == 1) == wanted for t, c in pairs)
        of_actual = sum((t == 1) == wanted[0] for t in truth)
        assert row.share == pytest.approx(row.images / of_actual if of_actual else 0)


@pytest.mark.parametrize("bins", [1, 4, 20])
@pytest.mark.parametrize("seed", range(2))
def test_histogram_counts_cells_of_each_label(seed: int, bins: int) -> None:
    """Scores with ties on the edges of bins: an edge belongs to the bin above it, 1 to the last."""
    targets, scores = drawn(seed)
    scores[:2] = [[0, 1, 0.5], [1, 0.25, 0]]
    table = metrics.histogram(NAMES, targets, scores, bins)
    assert len(table) == 3 * 3 * bins
    edges = np.linspace(0, 1, bins + 1)
    expected = []
    for column, name in enumerate(NAMES):
        for label in ("present", "absent", "unknown"):
            state = {"present": 1.0, "absent": 0.0}.get(label)
            own = [
                s
                for t, s in zip(targets[:, column], scores[:, column], strict=True)
                if (t == state if state is not None else t != t)
            ]
            for number in range(bins):
                low, high, last = edges[number], edges[number + 1], number == bins - 1
                count = sum(low <= score and (score < high or last) for score in own)
                expected.append((name, label, low, count, count / len(own) if own else 0))
    assert list(table.itertuples(index=False, name=None)) == expected
    sums = table.groupby(["attribute", "label"])["cells"].sum().unstack()
    assert (sums.sum(axis=1) == len(targets)).all()


def test_histogram_without_cells_of_a_label() -> None:
    table = metrics.histogram(["a"], np.array([[1.0], [1.0]]), np.array([[0.2], [0.9]]), 2)
    assert list(table["label"]) == ["present", "present", "absent", "absent", "unknown", "unknown"]
    assert list(table["from"]) == [0, 0.5] * 3
    assert list(table["cells"]) == [1, 1, 0, 0, 0, 0]
    assert list(table["share"]) == [0.5, 0.5, 0, 0, 0, 0]
    assert metrics.histogram(["a"], np.empty((0, 1)), np.empty((0, 1)))["cells"].sum() == 0
    assert len(metrics.histogram([], np.empty((4, 0)), np.empty((4, 0)))) == 0


@pytest.mark.parametrize("seed", range(3))
def test_sweep_is_what_decisions_at_each_threshold_would_get(seed: int) -> None:
    targets, scores = drawn(seed)
    chosen = np.array([0.337, 0.5, 1.0])  # between two of the grid, on one, at the end
    table = metrics.sweep(NAMES, targets, scores, chosen)
    for column, name in enumerate(NAMES):
        truth, score = known_column(targets, scores, column)
        own = table[table["attribute"] == name]
        assert list(own.loc[own["chosen"] == 1, "threshold"].unique()) == [chosen[column]]
        assert set(own.loc[own["chosen"] == 0, "threshold"].round(9)) == {number / 100 for number in range(101)}
        assert own["threshold"].is_monotonic_increasing
        for row in own.itertuples():
            called = [s >= row.threshold for s in score]
            hits = sum(t and c for t, c in zip(truth, called, strict=True))
            expected = {
                "precision": hits / sum(called) if any(called) else math.nan,
                "recall": hits / sum(truth),
                "f1": 2 * hits / (sum(called) + sum(truth)),
            }
            assert row.value == pytest.approx(expected[row.score])
        # Where nothing is called present there is no precision, and no row of it.
        lowest = own.groupby("score")["threshold"].count()
        assert lowest["recall"] == lowest["f1"] == 102
        highest = max(score)
        assert own.loc[own["score"] == "precision", "threshold"].max() <= highest


def test_sweep_leaves_out_what_has_no_positive() -> None:
    targets = np.array([[np.nan, 0.0, 1.0], [np.nan, 0.0, np.nan]])
    table = metrics.sweep(NAMES, targets, np.full((2, 3), 0.5), np.full(3, 0.5))
    assert set(table["attribute"]) == {"c"}
    assert metrics.sweep([], np.empty((4, 0)), np.empty((4, 0)), np.empty(0)).empty
