"""Regression on frozen features against scikit-learn by hand; what a row's prediction may and may not know."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import timm
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

from stages.lib import backbones, probe
from stages.lib.model import Tagger
from stages.lib.preprocessing import Preprocessing, to_input

torch.set_num_threads(1)

CPU = torch.device("cpu")
HALF = (0.5, 0.5, 0.5)
HOW = Preprocessing(48, "squash", 32, 0.875, HALF, HALF)


def drawn(seed: int, signal: float = 1.0, n_images: int = 60, n_attributes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Features (n_images, 6) of uneven scale that tell of the targets by `signal`, and targets with NaN."""
    chance = np.random.default_rng(seed)
    targets = (chance.random((n_images, n_attributes)) < np.linspace(0.3, 0.7, n_attributes)).astype(float)
    values = chance.normal(size=(n_images, 6))
    values[:, :n_attributes] += signal * targets
    targets[chance.random(targets.shape) < 0.3] = np.nan
    return (values * [1, 10, 0.1, 1, 5, 1] + [0, 100, 0, -3, 0, 0]).astype(np.float32), targets


def slow_fitted(train: np.ndarray, targets: np.ndarray, asked: np.ndarray, strength: float) -> np.ndarray:
    """One row after the other, by the numbers of a regression on the rows whose label is known."""
    mean = [sum(float(row[column]) for row in train) / len(train) for column in range(train.shape[1])]
    spread = [math.sqrt(sum((float(row[c]) - m) ** 2 for row in train) / len(train)) for c, m in enumerate(mean)]
    scaled = [[(float(value) - m) / s for value, m, s in zip(row, mean, spread, strict=True)] for row in [*train, *asked]]
    found = []
    for target in targets.T:
        rows = [row for row in range(len(train)) if not math.isnan(target[row])]
        fit = LogisticRegression(C=strength, max_iter=2000, tol=1e-8).fit([scaled[r] for r in rows], [target[r] for r in rows])
        weights = fit.coef_[0]
        found.append([fit.intercept_[0] + sum(w * x for w, x in zip(weights, row, strict=True)) for row in scaled[len(train) :]])
    return np.array(found).T


def slow_loss(log_odds: np.ndarray, targets: np.ndarray) -> float:
    """Mean log loss over known cells."""
    cells = [(x, y) for x, y in zip(log_odds.ravel(), targets.ravel(), strict=True) if not math.isnan(y)]
    return sum(math.log(1 + math.exp(-x if y == 1 else x)) for x, y in cells) / len(cells)


# Features.


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet"])
def test_features_are_the_pooled_output_of_the_backbone(name: str) -> None:
    torch.manual_seed(0)
    backbone = timm.create_model(name, num_classes=0)
    pictures = list(np.random.default_rng(0).integers(0, 256, (70, 48, 48, 3), dtype=np.uint8))
    rows = np.random.default_rng(1).permutation(70)[:67]  # more than one batch
    found = probe.features(backbone, pictures, rows, HOW, CPU)
    backbone.eval()
    with torch.no_grad():
        maps = [backbone.forward_features(to_input(pictures[row][None], HOW))[0] for row in rows]
        expected = np.stack([one.mean((1, 2)).numpy() for one in maps])
    assert found.dtype == np.float32
    assert found.shape == (67, expected.shape[1])
    # Single precision, summed in another order.
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
    assert found.std(axis=0).max() > 0


@pytest.mark.parametrize("training", [True, False])
def test_features_leave_the_backbone_as_it_was(training: bool) -> None:
    torch.manual_seed(0)
    backbone = timm.create_model("test_resnet", num_classes=0).train(training)
    for number, parameter in enumerate(backbone.parameters()):
        parameter.requires_grad_(number % 2 == 0)
    state = copy.deepcopy(backbone.state_dict())
    pictures = list(np.random.default_rng(0).integers(0, 256, (5, 48, 48, 3), dtype=np.uint8))
    probe.features(backbone, pictures, np.arange(5), HOW, CPU)
    assert any("running_mean" in name for name in state)
    for name, tensor in backbone.state_dict().items():
        assert torch.equal(tensor, state[name]), name
    assert [parameter.requires_grad for parameter in backbone.parameters()] == [
        number % 2 == 0 for number, _ in enumerate(backbone.parameters())
    ]
    assert all(parameter.grad is None for parameter in backbone.parameters())
    assert all(module.training == training for module in backbone.modules())


def flags(network: nn.Module) -> dict[str, bool]:
    return {name: module.training for name, module in network.named_modules()}


@pytest.mark.parametrize("freeze", ["none", "layer3", "all"])
def test_features_leave_frozen_parts_frozen_and_the_others_training(freeze: str) -> None:
    network = Tagger(backbones.bare("test_resnet", 32), 2, 8, (0.0, 0.0))
    network.freeze(freeze)
    before = flags(network.train())
    pictures = list(np.zeros((3, 48, 48, 3), dtype=np.uint8))
    probe.features(network.backbone, pictures, np.arange(3), HOW, CPU)
    assert flags(network) == before


# One fit.


@pytest.mark.parametrize("strength", probe.STRENGTHS)
@pytest.mark.parametrize("seed", range(2))
def test_fitted_is_regression_on_the_known_rows(seed: int, strength: float) -> None:
    values, targets = drawn(seed)
    found = probe.fitted(values[:40], targets[:40], strength).log_odds(values[40:])
    # The stage stops its search at a slope of 0.001, this one at 1e-8.
    np.testing.assert_allclose(found, slow_fitted(values[:40], targets[:40], values[40:], strength), atol=0.01)
    assert found.shape == (20, 3)
    absent = slow_fitted(values[:40], np.nan_to_num(targets[:40]), values[40:], strength)
    assert np.abs(found - absent).max() > 0.05  # unknown is not absent


ONE_CLASS = {  # labels of one attribute -> the probability that every row gets
    "all present": ([1, 1, np.nan, 1, np.nan], 1 - 1e-6),
    "all absent": ([0, np.nan, 0, 0, 0], 1e-6),
    "one present": ([np.nan, np.nan, np.nan, 1, np.nan], 1 - 1e-6),
    "nothing known": ([np.nan] * 5, 0.5),
}


@pytest.mark.parametrize(("labels", "probability"), ONE_CLASS.values(), ids=ONE_CLASS.keys())
def test_an_attribute_without_both_classes_gets_its_base_rate(labels: list[float], probability: float) -> None:
    chance = np.random.default_rng(0)
    targets = np.column_stack([labels, [0, 1, 0, 1, 1]]).astype(float)
    found = probe.fitted(chance.normal(size=(5, 3)), targets, 0.1).log_odds(chance.normal(size=(4, 3)))
    np.testing.assert_allclose(found[:, 0], math.log(probability / (1 - probability)), rtol=1e-9)
    assert len(set(found[:, 1])) == 4  # the attribute beside it is fitted


def test_features_that_never_change_teach_the_base_rate() -> None:
    targets = np.array([[1.0], [0], [0], [0]])
    found = probe.fitted(np.full((4, 2), 7.0), targets, 0.1).log_odds(np.full((3, 2), 7.0))
    np.testing.assert_allclose(1 / (1 + np.exp(-found)), 0.25, atol=1e-3)


# Cross-validation.


def slow_cross_validated(values: np.ndarray, targets: np.ndarray, fold_of: np.ndarray) -> tuple[np.ndarray, float]:
    """Row by row, each from a fit on the rows of other folds; the strength is that of the lowest log loss."""
    tried = []
    for strength in probe.STRENGTHS:
        found = np.empty(targets.shape)
        for row in range(len(values)):
            others = [other for other in range(len(values)) if fold_of[other] != fold_of[row]]
            found[row] = probe.fitted(values[others], targets[others], strength).log_odds(values[[row]])[0]
        tried.append((slow_loss(found, targets), strength, found))
    _, strength, found = min(tried, key=lambda each: each[0])
    return found, strength


def test_cross_validation_takes_the_strength_of_the_lowest_log_loss() -> None:
    chosen = set()
    for seed, signal in ((2, 0.0), (2, 4.0)):
        values, targets = drawn(seed, signal, n_images=36)
        fold_of = np.random.default_rng(seed).permutation(36) % 3 * 2  # numbers of folds may have gaps
        expected, strength = slow_cross_validated(values, targets, fold_of)
        # Products of one row and of many differ in the last digits of single precision.
        np.testing.assert_allclose(probe.cross_validated(values, targets, fold_of), expected, rtol=1e-4, atol=1e-5)
        chosen.add(strength)
    assert chosen == {probe.STRENGTHS[0], probe.STRENGTHS[-1]}  # noise asks for the weakest, signal for the strongest


def test_a_prediction_does_not_know_its_own_fold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "STRENGTHS", (0.1,))
    values, targets = drawn(2)
    fold_of = np.arange(60) // 3 % 5
    before = probe.cross_validated(values, targets, fold_of)
    other = targets.copy()
    own = fold_of == 3
    other[own] = 1 - np.nan_to_num(other[own])
    after = probe.cross_validated(values, other, fold_of)
    np.testing.assert_array_equal(after[own], before[own])
    assert (np.abs(after[~own] - before[~own]).max(axis=1) > 0).all()  # the others have learned from that fold


def test_features_that_tell_the_row_and_nothing_else_show_no_signal() -> None:
    """What saw its own row could name every label here: 40 features, of which each knows one row."""
    targets = (np.arange(40)[:, None] % 2).astype(float)
    found = probe.cross_validated(np.eye(40), targets, np.arange(40) // 2 % 5)
    np.testing.assert_allclose(found, 0, atol=1e-6)
    assert np.abs(probe.fitted(np.eye(40), targets, 0.1).log_odds(np.eye(40))).min() > 0.05


# Test rows.


def roles_of(n_images: int) -> np.ndarray:
    return np.random.default_rng(5).permutation(np.repeat(["train", "val", "test"], [n_images - 40, 20, 20]))


def of_test_rows(values: np.ndarray, targets: np.ndarray, role: np.ndarray) -> np.ndarray:
    return probe.chosen(values, targets, role).log_odds(values[role == "test"])


@pytest.mark.parametrize("signal", [0.0, 4.0])
def test_chosen_is_fitted_on_train_and_chosen_on_val(signal: float) -> None:
    values, targets = drawn(0, signal, n_images=90)
    role = roles_of(90)
    train, val, test = (np.flatnonzero(role == name) for name in ("train", "val", "test"))
    tried = []
    for strength in probe.STRENGTHS:
        on_val = probe.fitted(values[train], targets[train], strength).log_odds(values[val])
        on_test = probe.fitted(values[train], targets[train], strength).log_odds(values[test])
        tried.append((slow_loss(on_val, targets[val]), on_test))
    best = min(tried, key=lambda each: each[0])[1]
    np.testing.assert_array_equal(of_test_rows(values, targets, role), best)
    assert not any(np.array_equal(best, each) for _, each in tried if each is not best)


def test_labels_and_features_of_test_rows_change_nothing() -> None:
    values, targets = drawn(1, n_images=90)
    role = roles_of(90)
    before = of_test_rows(values, targets, role)
    for other in (np.nan, 0.0, 1.0):
        changed = targets.copy()
        changed[role == "test"] = other
        np.testing.assert_array_equal(of_test_rows(values, changed, role), before)
    moved = values.copy()
    moved[np.flatnonzero(role == "test")[1:]] *= 1000
    np.testing.assert_array_equal(of_test_rows(moved, targets, role)[0], before[0])


def test_labels_of_val_rows_choose_the_strength_and_no_more() -> None:
    values, targets = drawn(0, 4.0, n_images=90)
    role = roles_of(90)
    train, test = role == "train", role == "test"
    flipped = targets.copy()
    flipped[role == "val"] = 1 - flipped[role == "val"]
    for given, strength in ((targets, probe.STRENGTHS[-1]), (flipped, probe.STRENGTHS[0])):
        expected = probe.fitted(values[train], targets[train], strength).log_odds(values[test])
        np.testing.assert_array_equal(of_test_rows(values, given, role), expected)


def test_best_of_counts_known_cells_and_takes_the_first_of_equals() -> None:
    targets = np.array([[1.0, np.nan], [0, np.nan], [np.nan, 1]])
    good, bad = np.array([[3.0, 0], [-3, 0], [0, 3]]), np.array([[-3.0, 0], [3, 0], [0, -3]])
    good_elsewhere = np.where(np.isnan(targets), -99.0, good)
    assert probe.best_of([(bad, targets), (good_elsewhere, targets), (good, targets)]) == 1
    assert probe.best_of([(good, targets), (bad, targets)]) == 0
