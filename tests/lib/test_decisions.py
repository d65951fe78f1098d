"""Prior correction, temperature and threshold in their order, and decision.json, which holds all three."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stages.lib import calibration, decisions, goals, loss, params
from stages.lib.errors import UserError

BEST_F1 = decisions.Goal("f1", 0.9, 0.5)


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
    assert np.isnan(decisions.probabilities(np.array([np.nan]))[0])


# Deciding.


def decision(**changes: list[float]) -> decisions.Decision:
    given = {"temperature": [2.0, 0.5], "threshold": [0.25, 0.5], "reached": [True, False]} | changes
    return decisions.Decision(*(np.array(given[name]) for name in ("temperature", "threshold", "reached")))


def test_log_odds_are_divided_by_the_temperature_and_then_compared() -> None:
    log_odds = np.array([[-2.0, 0.1], [-3.0, -0.1], [5.0, 0.0]])
    np.testing.assert_array_equal(decision().calibrated(log_odds), [[-1, 0.2], [-1.5, -0.2], [2.5, 0]])
    expected = []
    for row in log_odds:
        each = [1 / (1 + math.exp(-value / t)) for value, t in zip(row, (2, 0.5), strict=True)]
        expected.append([each[0] >= 0.25, each[1] >= 0.5])
    assert expected == [[True, True], [False, False], [True, True]]  # a probability of exactly the threshold is present
    found = decision().decided(log_odds)
    assert found.dtype == bool
    np.testing.assert_array_equal(found, expected)


def test_no_image_is_no_decision() -> None:
    assert decision().decided(np.empty((0, 2))).shape == (0, 2)


# Tuning.


def drawn(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Targets with NaN, log-odds that are three times too sure, and groups of two."""
    chance = np.random.default_rng(seed)
    true = chance.normal(size=(120, 2))
    targets = (chance.random(true.shape) < 1 / (1 + np.exp(-true))).astype(float)
    targets[chance.random(true.shape) < 0.2] = np.nan
    return targets, 3 * true, np.arange(120) // 2


@pytest.mark.parametrize("name", params.GOALS)
def test_thresholds_are_tuned_on_calibrated_probabilities(name: str) -> None:
    targets, log_odds, groups = drawn(0)
    goal = decisions.Goal(name, 0.7, 0.37)
    found = decisions.tune(targets, log_odds, groups, goal)
    np.testing.assert_array_equal(found.temperature, calibration.temperatures(targets, log_odds, groups))
    assert (found.temperature > 1.5).all()
    calibrated = 1 / (1 + np.exp(-log_odds / found.temperature))
    threshold, reached = goals.thresholds(targets, calibrated, name, 0.7, 0.37)
    np.testing.assert_allclose(found.threshold, threshold, rtol=1e-12)
    np.testing.assert_array_equal(found.reached, reached)
    # What the goal speaks of is what the decisions do.
    achieved = goals.achieved(targets, found.decided(log_odds), name)
    assert name not in ("precision", "recall") or (achieved[found.reached] >= 0.7).all()


def test_a_goal_that_nothing_reaches_and_labels_that_are_not_known() -> None:
    targets, log_odds, groups = drawn(1)
    targets[:, 1] = np.nan
    found = decisions.tune(targets, log_odds, groups, decisions.Goal("f1", 0.9, 0.37))
    assert (found.threshold[1], found.reached[1]) == (0.37, False)
    # The surest one is absent: no threshold has a precision of 1.
    wrong = np.where(np.nan_to_num(targets[:, 0]) == 1, -1.0, 1.0)[:, None]
    assert not decisions.tune(targets[:, :1], wrong, groups, decisions.Goal("precision", 1.0, 0.5)).reached[0]


# decision.json.


def write(path: Path, attributes: list[str] | None = None, chosen: decisions.Decision | None = None) -> Path:
    """A decision for ["collar", "logo"] and two members, in `path`."""
    shifts = np.array([[0.1, -2.5], [1 / 3, 0.0]])
    decisions.write(path, "abc", attributes or ["collar", "logo"], shifts, chosen or decision(), BEST_F1)
    return path


def spoiled(path: Path, key: str, value: Any) -> Path:
    """The same file with `key` of the attribute 'logo' replaced; taken away where `value` is ..."""
    content = json.loads(write(path).read_text())
    if value is ...:
        del content["attributes"]["logo"][key]
    else:
        content["attributes"]["logo"][key] = value
    path.write_text(json.dumps(content))
    return path


def test_what_is_written_is_read_in_the_order_of_the_attributes(tmp_path: Path) -> None:
    path = write(tmp_path / "decision.json")
    found, shifts = decisions.read(path, "abc", ["logo", "collar"], 2)
    np.testing.assert_array_equal(found.temperature, [0.5, 2])
    np.testing.assert_array_equal(found.threshold, [0.5, 0.25])
    assert found.reached.tolist() == [False, True]
    np.testing.assert_array_equal(shifts, [[-2.5, 0.1], [0, 1 / 3]])
    assert json.loads(path.read_text()) == {
        "model": "abc",
        "goal": {"name": "f1"},
        "attributes": {
            "collar": {"log_pos_weight": [0.1, 1 / 3], "temperature": 2.0, "threshold": 0.25, "goal_reached": True},
            "logo": {"log_pos_weight": [-2.5, 0.0], "temperature": 0.5, "threshold": 0.5, "goal_reached": False},
        },
    }


@pytest.mark.parametrize("name", params.GOALS)
def test_a_minimum_is_written_where_it_plays_a_part(tmp_path: Path, name: str) -> None:
    decisions.write(tmp_path / "d.json", "abc", ["collar", "logo"], np.zeros((1, 2)), decision(), decisions.Goal(name, 0.8, 0.5))
    expected = {"name": name} | ({"minimum": 0.8} if name in ("precision", "recall") else {})
    assert json.loads((tmp_path / "d.json").read_text())["goal"] == expected


@pytest.mark.parametrize("seed", range(5))
def test_every_number_is_read_exactly_as_it_was(tmp_path: Path, seed: int) -> None:
    chance = np.random.default_rng(seed)
    given = decisions.Decision(chance.lognormal(0, 3, 6), chance.random(6) ** 5, chance.random(6) < 0.5)
    shifts, names = chance.normal(0, 5, (3, 6)), [f"é {number}" for number in range(6)]
    decisions.write(tmp_path / "d.json", "abc", names, shifts, given, BEST_F1)
    found, read_shifts = decisions.read(tmp_path / "d.json", "abc", names, 3)
    for one, two in ((given.temperature, found.temperature), (given.threshold, found.threshold), (shifts, read_shifts)):
        np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(given.reached, found.reached)


@pytest.mark.parametrize("score", [2e-7, 0.123456789, 0.9999996, 0.99999999])
def test_a_threshold_decides_the_same_after_it_was_written(tmp_path: Path, score: float) -> None:
    """A threshold may be a picture's own score, or very small: rounding it would change that picture's decision."""
    path = write(tmp_path / "decision.json", chosen=decision(threshold=[score, 0.5]))
    found, _ = decisions.read(path, "abc", ["collar", "logo"], 2)
    assert score >= found.threshold[0]
    assert not score * (1 - 1e-9) >= found.threshold[0]


def test_decisions_of_another_model_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "decision.json")
    with pytest.raises(UserError, match=r"decision\.json belongs to another model file; run 'dvc repro evaluate'"):
        decisions.read(path, "abd", ["collar", "logo"], 2)


@pytest.mark.parametrize("attributes", [["logo"], ["logo", "collar", "striped"], ["logo", "collars"], []])
def test_decisions_on_other_attributes_are_refused(tmp_path: Path, attributes: list[str]) -> None:
    path = write(tmp_path / "decision.json")
    with pytest.raises(UserError, match="does not name the model's attributes"):
        decisions.read(path, "abc", attributes, 2)


@pytest.mark.parametrize("n_members", [1, 3])
def test_decisions_for_another_number_of_members_are_refused(tmp_path: Path, n_members: int) -> None:
    path = write(tmp_path / "decision.json")
    with pytest.raises(UserError, match=rf"log_pos_weight of 'collar' must be a list of {n_members}; run 'dvc repro --force"):
        decisions.read(path, "abc", ["collar", "logo"], n_members)


DAMAGED = ["", "[1]", "{", "{}", '{"model": "abc"}'] + [
    f'{{"model": "abc", "attributes": {found}}}'
    for found in ("[0.5]", "null", '{"logo": 0.5}', '{"logo": [0.5]}', '{"logo": {}}')
]


@pytest.mark.parametrize("text", DAMAGED)
def test_a_damaged_decision_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "decision.json").write_text(text)
    with pytest.raises(UserError, match=r"decision\.json.*run 'dvc repro"):
        decisions.read(tmp_path / "decision.json", "abc", ["logo"], 1)


BAD = ["high", None, True, False, [0.5], {}, float("nan"), float("inf"), -float("inf"), ...]


@pytest.mark.parametrize("value", BAD, ids=str)
@pytest.mark.parametrize("key", ["threshold", "temperature"])
def test_what_is_no_number_is_refused(tmp_path: Path, key: str, value: Any) -> None:
    path = spoiled(tmp_path / "decision.json", key, value)
    with pytest.raises(UserError, match=rf"decision\.json: the {key} of 'logo' is .*, not a number; run 'dvc repro --force eval"):
        decisions.read(path, "abc", ["collar", "logo"], 2)


def test_a_number_beyond_all_floats_is_refused(tmp_path: Path) -> None:
    path = spoiled(tmp_path / "decision.json", "threshold", 10**400)
    with pytest.raises(UserError, match="the threshold of 'logo'"):
        decisions.read(path, "abc", ["collar", "logo"], 2)


@pytest.mark.parametrize("value", [0, 0.0, -0.0, -1, -1e-300])
def test_a_temperature_that_is_not_above_zero_is_refused(tmp_path: Path, value: float) -> None:
    path = spoiled(tmp_path / "decision.json", "temperature", value)
    with pytest.raises(UserError, match=r"the temperature of 'logo' is .*, not above 0; run 'dvc repro --force evaluate'"):
        decisions.read(path, "abc", ["collar", "logo"], 2)


@pytest.mark.parametrize(
    "value", [[0.1, "x"], [None, 0.1], [True, 0.1], [0.1, float("nan")], [0.1], [], 0.1, "01", None, ...], ids=str
)
def test_a_damaged_log_pos_weight_is_refused(tmp_path: Path, value: Any) -> None:
    path = spoiled(tmp_path / "decision.json", "log_pos_weight", value)
    with pytest.raises(UserError, match=r"decision\.json: (the )?log_pos_weight of 'logo' .*run 'dvc repro --force evaluate'"):
        decisions.read(path, "abc", ["collar", "logo"], 2)


@pytest.mark.parametrize("value", [1, "true", None, ...], ids=str)
def test_only_true_means_that_a_goal_is_reached(tmp_path: Path, value: Any) -> None:
    path = spoiled(tmp_path / "decision.json", "goal_reached", value)
    assert decisions.read(path, "abc", ["collar", "logo"], 2)[0].reached.tolist() == [True, False]


def test_whole_numbers_are_numbers(tmp_path: Path) -> None:
    path = spoiled(tmp_path / "decision.json", "temperature", 3)
    assert decisions.read(path, "abc", ["collar", "logo"], 2)[0].temperature.tolist() == [2.0, 3.0]


def test_a_missing_decision_file_names_the_stage_that_writes_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"decision\.json is missing; the evaluate stage writes it"):
        decisions.read(tmp_path / "decision.json", "abc", ["logo"], 1)
