"""The masked loss against a slow loop over cells, and the constants that it is compared with."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from stages.lib import loss

SHAPES = [(1, 1), (1, 5), (7, 1), (13, 4)]


def drawn(shape: tuple[int, int], unknown: float = 0.3, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits, targets with NaN, and weights of a positive."""
    chance = np.random.default_rng(seed)
    targets = chance.integers(0, 2, shape).astype(float)
    targets[chance.random(shape) < unknown] = np.nan
    return chance.normal(0, 3, shape), targets, chance.uniform(0.1, 20, shape[1])


def slow_cell(logit: float, target: float, weight: float) -> float:
    """The definition, with the sigmoid written out."""
    probability = 1 / (1 + math.exp(-logit))
    return -weight * math.log(probability) if target == 1 else -math.log(1 - probability)


def slow_sum(logits: np.ndarray, targets: np.ndarray, weight: np.ndarray) -> tuple[float, int]:
    total, known = 0.0, 0
    for row in range(targets.shape[0]):
        for column in range(targets.shape[1]):
            if not math.isnan(targets[row, column]):
                total += slow_cell(logits[row, column], targets[row, column], weight[column])
                known += 1
    return total, known


def as_tensors(*arrays: np.ndarray) -> list[torch.Tensor]:
    return [torch.from_numpy(array) for array in arrays]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("unknown", [0.0, 0.3, 0.9])
def test_masked_sum_is_the_sum_over_known_cells(shape: tuple[int, int], unknown: float) -> None:
    logits, targets, weight = drawn(shape, unknown)
    total, known = loss.masked_sum(*as_tensors(logits, targets, weight))
    slow_total, slow_known = slow_sum(logits, targets, weight)
    assert known.item() == slow_known
    assert total.item() == pytest.approx(slow_total, rel=1e-12, abs=1e-12)


def test_unknown_cells_get_no_gradient_and_known_ones_the_right_one() -> None:
    logits, targets, weight = drawn((9, 4))
    tensor = torch.from_numpy(logits).requires_grad_()
    total, _ = loss.masked_sum(tensor, *as_tensors(targets, weight))
    total.backward()
    gradient = tensor.grad.numpy()
    assert np.isfinite(gradient).all()
    assert np.isnan(targets).any()
    assert (gradient[np.isnan(targets)] == 0).all()
    sigmoid = 1 / (1 + np.exp(-logits))
    expected = np.where(targets == 1, -weight * (1 - sigmoid), sigmoid)
    known = ~np.isnan(targets)
    np.testing.assert_allclose(gradient[known], expected[known], rtol=1e-10)


def test_a_batch_without_a_known_label_costs_nothing() -> None:
    layer = torch.nn.Linear(3, 2)
    total, known = loss.masked_sum(layer(torch.randn(4, 3)), torch.full((4, 2), torch.nan), torch.ones(2))
    (total / known.clamp(min=1)).backward()
    assert (total.item(), known.item()) == (0.0, 0)
    assert (layer.weight.grad == 0).all()
    assert (layer.bias.grad == 0).all()


@pytest.mark.parametrize("seed", range(3))
def test_at_zero_logits_the_mean_is_ln2_times_the_mean_weight(seed: int) -> None:
    _, targets, weight = drawn((20, 3), seed=seed)
    total, known = loss.masked_sum(*as_tensors(np.zeros((20, 3)), targets, weight))
    expected = math.log(2) * np.nanmean(weight * targets + 1 - targets)
    assert (total / known).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_cells_sum_to_masked_sum(shape: tuple[int, int]) -> None:
    logits, targets, weight = drawn(shape)
    cells = loss.cells(logits, targets, weight)
    total, known = loss.masked_sum(*as_tensors(logits, targets, weight))
    np.testing.assert_array_equal(np.isnan(cells), np.isnan(targets))
    assert (~np.isnan(cells)).sum() == known.item()
    assert np.nansum(cells) == pytest.approx(total.item(), rel=1e-12, abs=1e-12)


def test_cells_are_each_the_loss_of_their_own_logit() -> None:
    logits, targets, weight = drawn((6, 3))
    cells = loss.cells(logits, targets, weight)
    for row, column in zip(*np.nonzero(~np.isnan(targets)), strict=True):
        expected = slow_cell(logits[row, column], targets[row, column], weight[column])
        assert cells[row, column] == pytest.approx(expected, rel=1e-10)


def test_large_logits_do_not_overflow() -> None:
    logits = np.array([[1e4, -1e4], [-1e4, 1e4]])
    targets = np.array([[1.0, 0.0], [1.0, 0.0]])
    expected = np.array([[0.0, 0.0], [2e4, 1e4]])  # |logit| times the weight where wrong
    np.testing.assert_allclose(loss.cells(logits, targets, np.array([2.0, 3.0])), expected)
    total, _ = loss.masked_sum(*as_tensors(logits, targets, np.array([2.0, 3.0])))
    assert total.item() == pytest.approx(expected.sum())


@pytest.mark.parametrize("rate", [0.003, 0.08, 0.5, 0.97])
@pytest.mark.parametrize("weight", [0.1, 1.0, 11.5])
def test_best_constant_beats_every_other_constant(rate: float, weight: float) -> None:
    def cost(constant: np.ndarray | float) -> np.ndarray:
        return weight * rate * np.logaddexp(0, -np.asarray(constant)) + (1 - rate) * np.logaddexp(0, constant)

    found = float(loss.best_constant(np.array([rate]), np.array([weight]))[0])
    grid = np.linspace(-12, 12, 24001)
    assert cost(found) <= cost(grid).min()
    assert found == pytest.approx(grid[np.argmin(cost(grid))], abs=1e-3)


def test_best_constant_for_labels_never_or_always_seen_is_finite_and_extreme() -> None:
    found = loss.best_constant(np.array([0.0, 1.0, 0.0]), np.array([1.0, 1.0, 4.0]))
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found, [-13.8155, 13.8155, -13.8155 + math.log(4)], atol=1e-4)
    # Nearly free where the label stays as it was, dear where it does not.
    agrees = loss.cells(found[None, :2], np.array([[0.0, 1.0]]), np.ones(2))
    differs = loss.cells(found[None, :2], np.array([[1.0, 0.0]]), np.ones(2))
    assert (agrees < 1e-5).all()
    assert (differs > 13).all()


def test_best_constant_with_the_balancing_weight_is_zero() -> None:
    rate = np.array([0.08, 0.35, 0.8])
    np.testing.assert_allclose(loss.best_constant(rate, (1 - rate) / rate), 0, atol=1e-12)


def test_base_rates_are_of_known_cells() -> None:
    targets = np.array([[1, np.nan, np.nan], [0, 1, np.nan], [np.nan, 1, np.nan], [1, 0, np.nan], [0, np.nan, np.nan]])
    np.testing.assert_array_equal(loss.base_rates(targets), [0.5, 2 / 3, np.nan])
