"""Prior correction, thresholds of best F1, and decision.json."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from stages.lib import decisions, loss
from stages.lib.errors import UserError


@pytest.mark.parametrize("weight", [0.1, 1.0, 12.0])
@pytest.mark.parametrize("rate", [0.05, 0.5, 0.9])
def test_corrected_logits_of_a_weighted_fit_give_the_base_rate(rate: float, weight: float) -> None:
    """One free logit, the zero of the weighted loss's slope by bisection: a network that sees nothing learns it."""
    targets = torch.zeros(1000, 1, dtype=torch.float64)
    targets[: round(1000 * rate)] = 1

    def slope(at: float) -> float:
        logit = torch.tensor([at], dtype=torch.float64, requires_grad=True)
        total, _ = loss.masked_sum(logit.expand(1000, 1), targets, torch.tensor([weight], dtype=torch.float64))
        total.backward()
        return logit.grad.item()

    low, high = -20.0, 20.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    shifted = float(1 / (1 + np.exp(-low)))
    assert weight == 1 or shifted != pytest.approx(rate, rel=0.05)
    found = decisions.probabilities(decisions.corrected(np.array([low]), np.log([weight])))
    assert found[0] == pytest.approx(rate, rel=1e-9)


def test_each_attribute_is_corrected_by_its_own_weight() -> None:
    found = decisions.corrected(np.zeros((2, 3)), np.array([0.0, 1.0, -2.0]))
    np.testing.assert_array_equal(found, [[0, -1, 2], [0, -1, 2]])


def test_probabilities_do_not_overflow() -> None:
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        found = decisions.probabilities(np.array([-700.0, -30.0, 0.0, 2.0, 30.0, 1e6, 1e300]))
    np.testing.assert_allclose(found, [np.exp(-700), np.exp(-30), 0.5, 0.880797078, 1, 1, 1], rtol=1e-8)
    assert decisions.probabilities(np.array([-1e6]))[0] == 0


def slow_f1(truth: np.ndarray, score: np.ndarray, threshold: float) -> float:
    hits = false_alarms = missed = 0
    for label, value in zip(truth, score, strict=True):
        if np.isnan(label):
            continue
        hits += label == 1 and value >= threshold
        false_alarms += label == 0 and value >= threshold
        missed += label == 1 and value < threshold
    return 2 * hits / (2 * hits + false_alarms + missed)


def drawn(seed: int) -> tuple[np.ndarray, np.ndarray]:
    chance = np.random.default_rng(seed)
    truth = (chance.random(25) < chance.uniform(0.1, 0.9)).astype(float)
    truth[:2] = [0, 1]
    truth[2:][chance.random(23) < 0.3] = np.nan
    return truth, np.round(chance.random(25), 1 if seed % 2 else 6)


@pytest.mark.parametrize("seed", range(20))
def test_no_threshold_has_a_better_f1(seed: int) -> None:
    truth, score = drawn(seed)
    found = decisions.best_f1_threshold(truth, score, 0.5)
    best = max(slow_f1(truth, score, threshold) for threshold in [*score, -1.0, 2.0])
    assert slow_f1(truth, score, found) == pytest.approx(best, rel=1e-12)


@pytest.mark.parametrize("seed", range(6))
def test_unknown_labels_do_not_shape_the_threshold(seed: int) -> None:
    truth, score = drawn(seed)
    unknown = np.isnan(truth)
    assert unknown.any()
    found = decisions.best_f1_threshold(truth, score, 0.5)
    assert decisions.best_f1_threshold(truth[~unknown], score[~unknown], 0.5) == found
    assert decisions.best_f1_threshold(truth, np.where(unknown, 0.123, score), 0.5) == found


def test_the_threshold_lies_between_two_scores() -> None:
    truth, score = np.array([0.0, 0.0, 1.0, 1.0]), np.array([0.1, 0.4, 0.6, 0.9])
    assert decisions.best_f1_threshold(truth, score, 0.5) == pytest.approx(0.5)
    # Where everything is best called present there is no lower score: the threshold is the lowest one.
    assert decisions.best_f1_threshold(np.array([1.0, 0.0]), np.array([0.2, 0.8]), 0.5) == 0.2


def test_scores_that_are_neighbours_as_floats_are_kept_apart() -> None:
    low = 1 - 2**-52
    for below in (low, np.nextafter(low, 1.0), 0.3, np.nextafter(0.3, 1)):
        above = np.nextafter(below, 2.0)
        found = decisions.best_f1_threshold(np.array([0.0, 1.0]), np.array([below, above]), 0.5)
        assert below < found <= above


@pytest.mark.parametrize("truth", [[0, 0, np.nan], [1, 1, np.nan], [np.nan] * 3, []])
def test_without_both_classes_the_fallback_is_the_threshold(truth: list[float]) -> None:
    score = np.linspace(0.1, 0.9, len(truth))
    assert decisions.best_f1_threshold(np.array(truth, dtype=float), score, 0.37) == 0.37


def test_thresholds_by_rule() -> None:
    columns = [drawn(seed) for seed in range(3)]
    targets, scores = (np.stack([column[part] for column in columns], axis=1) for part in (0, 1))
    np.testing.assert_array_equal(decisions.thresholds(targets, scores, "fixed", 0.4), [0.4, 0.4, 0.4])
    expected = [decisions.best_f1_threshold(truth, score, 0.4) for truth, score in columns]
    np.testing.assert_array_equal(decisions.thresholds(targets, scores, "f1", 0.4), expected)


def test_what_is_written_is_read_in_the_order_of_the_attributes(tmp_path: Path) -> None:
    decisions.write(tmp_path / "decision.json", "abc", {"collar": 0.25, "logo": 0.5}, "f1")
    np.testing.assert_array_equal(decisions.read(tmp_path / "decision.json", "abc", ["logo", "collar"]), [0.5, 0.25])
    content = json.loads((tmp_path / "decision.json").read_text())
    assert content == {"model": "abc", "rule": "f1", "thresholds": {"collar": 0.25, "logo": 0.5}}


@pytest.mark.parametrize("score", [2e-7, 0.123456789, 0.9999996, 0.99999999])
def test_a_threshold_decides_the_same_after_it_was_written(tmp_path: Path, score: float) -> None:
    """A threshold may be a picture's own score, or very small: rounding it would change that picture's decision."""
    decisions.write(tmp_path / "decision.json", "abc", {"logo": score}, "f1")
    (found,) = decisions.read(tmp_path / "decision.json", "abc", ["logo"])
    assert score >= found
    assert not score * (1 - 1e-9) >= found


def test_decisions_of_another_model_are_refused(tmp_path: Path) -> None:
    decisions.write(tmp_path / "decision.json", "abc", {"logo": 0.5}, "f1")
    with pytest.raises(UserError, match=r"decision\.json belongs to another model file; run 'dvc repro evaluate'"):
        decisions.read(tmp_path / "decision.json", "abd", ["logo"])


@pytest.mark.parametrize("attributes", [["logo"], ["logo", "collar", "striped"], ["logo", "collars"], []])
def test_decisions_on_other_attributes_are_refused(tmp_path: Path, attributes: list[str]) -> None:
    decisions.write(tmp_path / "decision.json", "abc", {"collar": 0.25, "logo": 0.5}, "f1")
    with pytest.raises(UserError, match="does not name the model's attributes"):
        decisions.read(tmp_path / "decision.json", "abc", attributes)


@pytest.mark.parametrize("text", ["", "[1]", "{", '{"model": "abc"}', '{"model": "abc", "thresholds": [0.5]}', "{}"])
def test_a_damaged_decision_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "decision.json").write_text(text)
    with pytest.raises(UserError, match=r"decision\.json .*run 'dvc repro"):
        decisions.read(tmp_path / "decision.json", "abc", ["logo"])


@pytest.mark.parametrize("value", ['"high"', "null", "[0.5]"])
def test_a_threshold_that_is_no_number_is_refused(tmp_path: Path, value: str) -> None:
    (tmp_path / "decision.json").write_text(f'{{"model": "abc", "thresholds": {{"logo": {value}}}}}')
    with pytest.raises(UserError, match=r"decision\.json"):
        decisions.read(tmp_path / "decision.json", "abc", ["logo"])


def test_a_missing_decision_file_names_the_stage_that_writes_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"decision\.json is missing; the evaluate stage writes it"):
        decisions.read(tmp_path / "decision.json", "abc", ["logo"])
